"""Seeded bugs of how the request is found that kills the shard group."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

SUSPECTS = bugs_in(
    "suspects.py",
    (
        "        if again and len(running) == 1:\n",
        "        if again:\n",
        "of several suspects the first is condemned untried",
    ),
    (
        "        if again and len(running) == 1:\n",
        "        if running:\n            again = [run.sequence for run in running]\n",
        "one death is enough to be condemned",
    ),
    (
        "sequence.token_count > point + CLEARING_TOKEN_COUNT",
        "sequence.token_count > point + 2**20",
        "nobody is cleared who got past its point",
    ),
    (
        "        self._on_trial.remove(request_id)\n",
        "",
        "a trial never ends",
    ),
    (
        "            waiting.remove(sequence)\n",
        "",
        "whoever is tried waits in two places",
    ),
    (
        "        waiting.add_all(self.queue.take_all())\n",
        "        self.queue.take_all()\n",
        "whoever is tried and has no slot is lost with the trial",
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
