"""Seeded bugs of how requests end, and of what outlives the death of a shard group."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

ENDS = bugs_in(
    "scheduler.py",
    (
        "if sequence is None or sequence.is_held == is_held:",
        "if sequence is None:",
        "whoever is not held is let go all the same",
    ),
    (
        "            self._group.leave(sequence.residency)\n            self._waiting.hold",
        "            self._waiting.hold",
        "a request that is held keeps its slot",
    ),
    (
        "            self._waiting.let_go(sequence, now)\n        elif",
        "            pass\n        elif",
        "a request that was held never runs again",
    ),
    (
        "        self._group = GroupState(self._config)\n        self._step_time = StepTime()\n"
        "        for residency in running:\n",
        "        pool = self._group.pool\n        self._group = GroupState(self._config)\n"
        "        self._group.pool = pool\n        self._step_time = StepTime()\n"
        "        for residency in running:\n            pool.release(residency.blocks)\n",
        "the cache of a dead group is believed",
    ),
    (
        "        self._group = GroupState(self._config)\n        self._step_time = StepTime()\n"
        "        for",
        "        self._group = GroupState(self._config)\n        for",
        "a new group is taken to be as fast as the dead one",
    ),
    (
        "            residency.sequence.residency = None\n",
        "",
        "a restored sequence still names its dead slot",
    ),
    (
        "            residency.sequence.is_restored = True\n",
        "",
        "those that ran when a group died lose their place",
    ),
    (
        "            self._waiting.put_back(residency.sequence, now)\n",
        "            if residency.sequence.output_ids:\n"
        "                self._waiting.put_back(residency.sequence, now)\n",
        "whoever had no output yet is lost with the group",
    ),
    (
        "    def reset(self, now: float, is_excused: bool = False) -> list[Event]:\n",
        "    def reset(self, now: float, is_excused: bool = False) -> list[Event]:\n"
        "        for lost in self._group.running:\n            lost.sequence.output_ids.clear()\n",
        "after the death of a group output is generated and delivered again",
    ),
    (
        "        sequence.is_ended = True\n",
        "",
        "an ended sequence's timers go off",
    ),
    (
        "        del self._live[sequence.request.request_id]\n",
        "",
        "an ended request is kept for ever",
    ),
    (
        "        self._waiting.end(sequence)\n",
        "        if sequence.residency is not None:\n            self._waiting.end(sequence)\n",
        "whoever is cancelled in the queue still runs",
    ),
    (
        "self._group.leave(sequence.residency, has_ended)",
        "self._group.leave(sequence.residency, True)",
        "a cancelled sequence runs on until the next plan with rows",
    ),
    (
        "self._group.leave(sequence.residency, has_ended)",
        "self._group.leave(sequence.residency, reason is not FinishReason.CANCELLED)",
        "a sequence out of time runs on until the next plan with rows",
    ),
    (
        "self._group.leave(sequence.residency, has_ended)",
        "self._group.leave(sequence.residency, reason in _ENDS.values())",
        "a sequence cancelled with a reason that shards give too runs on",
    ),
    (
        "return Finished(sequence.request.request_id, reason, matched_id)",
        "return Finished(sequence.request.request_id, reason)",
        "the id that ended a text is not told",
    ),
)
