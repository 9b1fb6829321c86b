"""Every seeded bug of the scheduler, in the order of the files that have them."""

from __future__ import annotations

from router.core.bugs.blocks import BLOCKS, GROUP, PREFIX
from router.core.bugs.ends import ENDS
from router.core.bugs.lines import FAIR_SHARE, WAITING
from router.core.bugs.planning import ADMISSION, DRAFT, LEASE
from router.core.bugs.plans import PLANNER
from router.core.bugs.results import POSSIBLE, REQUESTS, RESULTS
from router.core.bugs.room import ROOM
from router.core.bugs.sequences import POLICY, SEQUENCE, SETTINGS, TIMERS
from router.core.bugs.suspects import SUSPECTS

CATALOGUE = [
    *BLOCKS,
    *GROUP,
    *PREFIX,
    *SEQUENCE,
    *SETTINGS,
    *POLICY,
    *WAITING,
    *FAIR_SHARE,
    *ROOM,
    *TIMERS,
    *ADMISSION,
    *DRAFT,
    *LEASE,
    *PLANNER,
    *POSSIBLE,
    *REQUESTS,
    *SUSPECTS,
    *RESULTS,
    *ENDS,
]
