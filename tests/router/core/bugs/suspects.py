"""Seeded bugs of how the request is found that kills the shard group."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

SUSPECTS = bugs_in(
    "suspects.py",
    (
        "        if again and len(at_work) == 1:\n",
        "        if again:\n",
        "of several suspects the first is condemned untried",
    ),
    (
        "        if again and len(at_work) == 1:\n",
        "        if at_work:\n            again = [run.sequence for run in at_work]\n",
        "one death is enough to be condemned",
    ),
    (
        "            self.is_trial_over = not self._on_trial\n",
        "",
        "a trial never ends",
    ),
    (
        "            sequence.is_tried = True\n",
        "            pass\n",
        "whoever is tried is not known to be",
    ),
    (
        "        waiting.is_trying = bool(tried)\n",
        "        waiting.is_trying |= bool(tried)\n",
        "nobody else runs again after a trial",
    ),
    (
        "            self._untried.remove(sequence)\n",
        "            pass\n",
        "who has ended is tried nevertheless",
    ),
    (
        "        self._points.pop(request_id, None)\n",
        "",
        "who got past its point is suspected still",
    ),
)
