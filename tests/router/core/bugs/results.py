"""Seeded bugs of how requests arrive and of how results are counted."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

REQUESTS = bugs_in(
    "scheduler.py",
    (
        "if not request.prompt_ids or request.max_new_tokens < 1:",
        "if request.max_new_tokens < 1:",
        "a request after no token is accepted",
    ),
    (
        "if token_count > self.max_request_tokens:",
        "if token_count >= self.max_request_tokens:",
        "a request that just fits is refused",
    ),
    (
        "token_count = len(request.prompt_ids) + request.max_new_tokens",
        "token_count = len(request.prompt_ids)",
        "a request whose answer does not fit is accepted",
    ),
    (
        "if len(request.output_ids) >= request.max_new_tokens:",
        "if len(request.output_ids) > request.max_new_tokens:",
        "a request that has all its tokens already is accepted",
    ),
    (
        "Sequence(request, order, [root], list(request.output_ids))",
        "Sequence(request, order, [root])",
        "output of an earlier router is generated again",
    ),
    (
        "        self._arrival_count += 1\n",
        "        self._arrival_count -= 1\n",
        "of those that arrive together the last goes first",
    ),
    (
        "        self._arrival_count += 1\n",
        "",
        "those that arrive together cannot be told apart",
    ),
    (
        "self._config.plans_in_flight * self._config.plan_seconds(row_count)",
        "self._config.plan_seconds(row_count)",
        "the shards cut a lease while another waits its turn",
    ),
    (
        "root = root_prefix(self._cache_seed, key) if key else self._common_root",
        "root = self._common_root",
        "cached blocks are shared whatever tenant and salt",
    ),
    (
        "        while (due := self._timers.pop_due(now)) is not None:",
        "        if (due := self._timers.pop_due(now)) is not None:",
        "one request a plan runs out of time",
    ),
    (
        "if len(group.in_flight) >= self._config.plans_in_flight:",
        "if len(group.in_flight) > self._config.plans_in_flight:",
        "one plan too many is in flight",
    ),
    (
        "if len(group.in_flight) >= self._config.plans_in_flight:",
        "if len(group.in_flight) >= 1:",
        "one plan at a time is in flight",
    ),
    (
        "if not draft.rows and not group.is_retire_urgent:",
        "if not draft.rows:",
        "a cancelled sequence runs on while nobody else has work",
    ),
    (
        "if not draft.rows and not group.is_retire_urgent:",
        "if not draft.rows and not group.retires:",
        "a plan is made to tell the shards what they know",
    ),
    (
        "self._preemption_count += len(draft.preempted)",
        "self._preemption_count += bool(draft.preempted)",
        "several preemptions count as one",
    ),
    (
        "self._cached_token_count += admitted.computed_length",
        "self._cached_token_count = admitted.computed_length",
        "cached tokens are counted anew with every admission",
    ),
)

RESULTS = bugs_in(
    "scheduler.py",
    (
        "if not in_flight or not in_flight[0].expects(result):",
        "if not in_flight:",
        "any result is taken for the next one",
    ),
    (
        "            steps += plan.num_steps - plan.steps_done\n",
        "",
        "steps that a cut lease did not run are not planned again",
    ),
    (
        "            in_flight.popleft()\n",
        "            in_flight.clear()\n",
        "the first result answers all plans in flight",
    ),
    (
        "if plan.is_decode and plan.rows and result.steps_run > 0:",
        "if plan.rows and result.steps_run > 0:",
        "the time of any plan is taken for that of a decode step",
    ),
    (
        "            if planned.residency.is_live:",
        "            if not planned.residency.sequence.is_ended:",
        "results of a residency before a preemption are accepted",
    ),
    (
        "            if row.state is RowState.NON_FINITE:\n                self._forget",
        "            if row.state is RowState.MASKED:\n                self._forget",
        "what a bad row has written stays in the cache",
    ),
    (
        "            if planned.residency.is_live:\n"
        "                self._apply_row(planned, row, steps, events)\n",
        "            if not planned.residency.is_live:\n                continue\n"
        "            self._apply_row(planned, row, steps, events)\n",
        "what a cancelled row has spoilt stays in the cache",
    ),
    (
        "            residency.pending_samples -= steps\n",
        "            residency.pending_samples -= len(token_ids)\n",
        "samples that did not come are awaited for ever",
    ),
    (
        "            residency.pending_samples -= steps\n",
        "            residency.pending_samples = 0\n",
        "a result answers all samples in flight",
    ),
    (
        "            residency.planned_computed -= steps - len(token_ids)\n",
        "",
        "a position moves on past steps that did not run",
    ),
    (
        "if row.state in _MATCHES:",
        "if row.state is RowState.END_OF_TEXT:",
        "a stop id is part of the output",
    ),
    (
        "row.logprobs[: len(token_ids)]",
        "row.logprobs",
        "the log probability of a stop id is delivered",
    ),
    (
        "sequence.output_ids += token_ids",
        "sequence.output_ids += token_ids[:1]",
        "of several ids in a result the first alone is logged",
    ),
    (
        "            if token_ids:\n                sequence.output_ids",
        "            if token_ids and row.state is not RowState.NON_FINITE:\n"
        "                sequence.output_ids",
        "good ids before a bad step are lost",
    ),
    (
        "            self._group.register_output(residency, matched_id is not None)\n",
        "",
        "output is not cached",
    ),
)
