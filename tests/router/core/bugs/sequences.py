"""Seeded bugs of what is kept of a sequence, of the settings, of time and of the running order."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

SEQUENCE = bugs_in(
    "sequence.py",
    (
        "start = (len(self.prefixes) - 1) * block_size",
        "start = len(self.prefixes) * block_size",
        "a block is hashed by the ids of the next one",
    ),
    (
        "extend_prefix(self.prefixes[-1], ids)",
        "extend_prefix(self.prefixes[0], ids)",
        "the hash chain begins anew at every block",
    ),
    (
        "self.output_ids[max(0, start - prompt_length) : end - prompt_length]",
        "self.output_ids[: end - prompt_length]",
        "an output block is hashed by all output before its end",
    ),
    (
        "return self.request.prompt_ids[start:] + output",
        "return output",
        "in the block where output begins the prompt is left out of the hash",
    ),
    (
        "if end <= prompt_length:",
        "if end <= prompt_length + 1:",
        "the first output id is left out of the hash",
    ),
    (
        "return self.request.prompt_ids + tuple(self.output_ids)",
        "return self.request.prompt_ids + tuple(self.output_ids[:-1])",
        "the last accepted id is lost when a sequence is admitted again",
    ),
    (
        "return len(self.request.prompt_ids) + len(self.output_ids)",
        "return len(self.request.prompt_ids)",
        "output does not count among a sequence's tokens",
    ),
    (
        "accepted = len(sequence.output_ids) + self.pending_samples",
        "accepted = len(sequence.output_ids)",
        "what is in flight does not count towards the maximum",
    ),
    (
        "return self.admitted_length - self.planned_computed",
        "return self.admitted_length - self.planned_computed + 1",
        "a prompt's last chunk has one token too many",
    ),
)

SETTINGS = bugs_in(
    "settings.py",
    (
        "max(self.lease_seconds / self.plans_in_flight, row_count * self.seconds_per_row)",
        "max(self.lease_seconds, row_count * self.seconds_per_row)",
        "each plan in flight lasts as long as all may together",
    ),
    (
        "max(self.lease_seconds / self.plans_in_flight, row_count * self.seconds_per_row)",
        "self.lease_seconds / self.plans_in_flight",
        "a plan of many rows lasts no longer than one of few",
    ),
    (
        "return min(self.slot_count, self.tokens_per_step)",
        "return self.slot_count",
        "more sequences run than a step has tokens for",
    ),
    (
        "blocks = min(self.blocks_per_sequence, self.block_count)",
        "blocks = self.blocks_per_sequence",
        "a request longer than the pool is accepted",
    ),
    (
        "blocks = min(self.blocks_per_sequence, self.block_count)",
        "blocks = self.block_count",
        "a request longer than a block table is accepted",
    ),
    (
        "return min(self.context_token_count, blocks * self.block_size)",
        "return blocks * self.block_size",
        "a request longer than the model's positions is accepted",
    ),
)

POLICY = bugs_in(
    "policy.py",
    (
        "return arrival - request.priority * aging_seconds",
        "return arrival + request.priority * aging_seconds",
        "low priority goes first",
    ),
    (
        "return arrival - request.priority * aging_seconds",
        "return -arrival - request.priority * aging_seconds",
        "waiting lowers a priority",
    ),
    (
        "return arrival - request.priority * aging_seconds",
        "return -request.priority * aging_seconds",
        "waiting never raises a priority",
    ),
    (
        "return arrival - request.priority * aging_seconds",
        "return arrival",
        "priorities are ignored",
    ),
    (
        "return arrival - request.priority * aging_seconds",
        "return arrival - (request.priority > 1) * aging_seconds",
        "high priority is no more than normal",
    ),
)

TIMERS = bugs_in(
    "timers.py",
    (
        "ends = (request.time_budget_end, request.deadline, queue_end)",
        "ends = (request.deadline, request.time_budget_end, queue_end)",
        "deadline and time budget are taken for each other",
    ),
    (
        "ends = (request.time_budget_end, request.deadline, queue_end)",
        "ends = (request.time_budget_end, None, queue_end)",
        "deadlines are ignored",
    ),
    (
        "ends = (request.time_budget_end, request.deadline, queue_end)",
        "ends = (request.time_budget_end, request.deadline, None)",
        "patience in the queue has no end",
    ),
    (
        "if end is None or end > now:",
        "if end is None or end >= now:",
        "a time that is up this very moment is not up",
    ),
    (
        "if len(self._heap) > 6 * live_count + 64:",
        "if False:",
        "timers of the dead are kept",
    ),
    (
        "[timer for timer in self._heap if _is_armed(timer)]",
        "[timer for timer in self._heap if not _is_armed(timer)]",
        "clearing away dead timers clears the live ones",
    ),
    (
        "            heapq.heapify(self._heap)\n",
        "",
        "after clearing dead timers away the rest are out of order",
    ),
    (
        "    if sequence.is_ended:\n        return False\n",
        "",
        "timers of the dead go off",
    ),
    (
        "has_started = sequence.generation > 0",
        "has_started = sequence.residency is not None",
        "a preempted sequence runs out of patience in the queue",
    ),
    (
        "has_started = sequence.generation > 0",
        "has_started = False",
        "a running sequence runs out of patience in the queue",
    ),
)
