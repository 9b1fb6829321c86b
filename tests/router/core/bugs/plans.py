"""Seeded bugs of the planner: who gets rows, blocks and further steps, and who has to go."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

PLANNER = bugs_in(
    "planner.py",
    (
        "    for sequence in draft.preempted:\n        waiting.put_back(sequence, now)\n",
        "    for sequence in draft.preempted[:1]:\n        waiting.put_back(sequence, now)\n",
        "of several preempted sequences one comes back",
    ),
    (
        "    for residency in group.running:\n        if residency.prefill_left > 0:",
        "    for residency in group.running[:1]:\n        if residency.prefill_left > 0:",
        "only the first in order reads its prompt on",
    ),
    (
        "        group.pool.release([copy.source])\n",
        "        pass\n",
        "sources of copies stay held",
    ),
    (
        "    _admit_waiting(draft, group, waiting, now)\n    for copy",
        "    if not group.running:\n        _admit_waiting(draft, group, waiting, now)\n"
        "    for copy",
        "newcomers wait until nobody runs",
    ),
    (
        "if not draft.rows or not draft.is_lease_possible:",
        "if not draft.rows:",
        "rows that do not sample get further steps",
    ),
    (
        "config.plan_seconds(len(draft.rows))",
        "config.plan_seconds(len(group.running))",
        "a lease has the time of all who run, whoever has a row",
    ),
    (
        "more = min(num_steps - 1, min(residency.samples_left for residency in residencies))",
        "more = min(num_steps - 1, max(residency.samples_left for residency in residencies))",
        "a lease goes on past the maximum of the shortest row",
    ),
    (
        "more = min(num_steps - 1, ",
        "more = min(num_steps, ",
        "a lease has one step too many",
    ),
    (
        "    while more > 0 and _missing_blocks(residencies, more, group) > "
        "group.pool.available_count:\n        more //= 2\n",
        "",
        "a lease takes blocks that are not there",
    ),
    (
        "_missing_blocks(residencies, more, group) > group.pool.available_count:",
        "_missing_blocks(residencies[:1], more, group) > group.pool.available_count:",
        "a lease has blocks for its first row",
    ),
    (
        "            residency.planned_computed += more\n",
        "",
        "a lease's further steps do not move the planned position",
    ),
    (
        "            residency.pending_samples += more\n",
        "",
        "a lease's further samples are not counted among those to come",
    ),
    (
        "return 1 + more",
        "return num_steps",
        "a lease runs further than it has blocks for",
    ),
    (
        "or residency.samples_left <= 0:",
        "or residency.samples_left < 0:",
        "one token too many is planned",
    ),
    (
        "        if not residency.is_live:\n            continue\n",
        "",
        "a sequence preempted in this plan gets a row in it",
    ),
    (
        "if position < residency.admitted_length or",
        "if position <= residency.admitted_length or",
        "a sequence stops after its first token",
    ),
    (
        "if position == len(residency.blocks) * block_size and not _grow",
        "if position > len(residency.blocks) * block_size and not _grow",
        "a sequence gets its next block one token late",
    ),
    (
        "last = group.running[-1]",
        "last = group.running[0]",
        "the first in order is preempted",
    ),
    (
        "last = group.running[-1]",
        "last = group.running[-2 if len(group.running) > 2 else -1]",
        "the last but one in order is preempted",
    ),
    (
        "        if last is residency:\n            return False\n",
        "",
        "a sequence that preempts itself still takes a block",
    ),
    (
        "    while group.pool.available_count == 0:",
        "    if group.pool.available_count == 0:",
        "one preemption is taken to give a block",
    ),
    (
        "    while group.pool.available_count == 0:",
        "    while group.pool.available_count <= 1:",
        "a sequence is preempted while a block is there",
    ),
    (
        "    while group.pool.available_count == 0:",
        "    while group.pool.free_count == 0:",
        "a sequence is preempted while blocks could be evicted",
    ),
    (
        "token_count = min(draft.tokens_left, residency.prefill_left)",
        "token_count = residency.prefill_left",
        "a prompt is read whole, whatever the step holds",
    ),
    (
        "    group.register_blocks(residency, residency.planned_computed)\n",
        "    group.register_blocks(residency, residency.admitted_length)\n",
        "a prompt is cached to its end with its first chunk",
    ),
    (
        "    group.register_blocks(residency, residency.planned_computed)\n",
        "    pass\n",
        "prompts are not cached",
    ),
    (
        "    draft.filled_blocks.update(residency.blocks[first : residency.registered_count])\n",
        "",
        "a plan forgets which blocks it fills",
    ),
    (
        "while draft.tokens_left > 0 and group.has_free_slot",
        "while group.has_free_slot",
        "sequences are admitted to a step that has no room for them",
    ),
    (
        "        waiting.take(sequence, now)\n        _plan_chunk(residency, draft, group)\n",
        "        waiting.take(sequence, now)\n        _plan_chunk(residency, draft, group)\n"
        "        break\n",
        "one sequence is admitted a plan",
    ),
    (
        "        waiting.take(sequence, now)\n",
        "",
        "whoever is admitted stays in the queue",
    ),
)
