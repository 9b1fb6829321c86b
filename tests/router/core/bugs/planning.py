"""Seeded bugs of admission, of drafting and planning, and of leases."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

ADMISSION = bugs_in(
    "admission.py",
    (
        "headroom = len(group.running)",
        "headroom = 0",
        "a newcomer gets the blocks that running sequences need next",
    ),
    (
        "if residency.generation == 1:",
        "if True:",
        "a sequence starts anew with every admission",
    ),
    (
        "min(reservation.computed_length, prompt_length)",
        "0",
        "usage tells of no cached tokens",
    ),
    (
        "min(reservation.computed_length, prompt_length)",
        "reservation.computed_length",
        "usage counts cached output of an earlier router as prompt",
    ),
    (
        "    draft.copies += reservation.copies\n",
        "    draft.copies = reservation.copies\n",
        "of two copies in a plan the first is lost",
    ),
    (
        "if computed_length == token_count:",
        "if computed_length > token_count:",
        "of a prompt cached to its end no token is run",
    ),
    (
        "if source in filled_blocks:",
        "if False:",
        "a block is copied before the same plan writes it",
    ),
    (
        "            sources.append(source)\n",
        "",
        "the last block of a prompt cached to its end is not copied",
    ),
    (
        "pool.share(hits + sources)",
        "pool.share(hits)",
        "nobody holds the source of a copy",
    ),
    (
        "new_count = -(-token_count // block_size) - len(hits)",
        "new_count = token_count // block_size - len(hits)",
        "a prompt's last tokens have no block",
    ),
    (
        "if new_count + headroom > pool.available_count:",
        "if new_count + headroom >= pool.available_count:",
        "whoever needs the whole pool is never admitted",
    ),
    (
        "if new_count + headroom > pool.available_count:",
        "if new_count + headroom - len(hits) > pool.available_count:",
        "blocks found in the cache count twice",
    ),
    (
        "        pool.release(hits + sources)\n        return None",
        "        return None",
        "blocks found for someone who cannot be admitted stay held",
    ),
    (
        "        pool.release(hits + sources)\n        return None",
        "        pool.release(hits)\n        return None",
        "the source of a copy that is not made stays held",
    ),
    (
        "BlockCopy(source, blocks[-1])",
        "BlockCopy(source, blocks[0])",
        "a copy goes to the first block of the table",
    ),
    (
        "range(1, sequence.token_count // block_size + 1)",
        "range(1, sequence.token_count // block_size)",
        "the last full block of a prompt is never looked up",
    ),
    (
        "        if found is None:\n            break",
        "        if found is None:\n            continue",
        "a hole in a cached prefix is stepped over",
    ),
    (
        "prompt_length=len(request.prompt_ids)",
        "prompt_length=len(residency.sequence.token_ids)",
        "after a replay output is numbered from 0 again",
    ),
    (
        "computed_length=residency.planned_computed",
        "computed_length=0",
        "shards run again what is cached, into shared blocks",
    ),
    (
        "remaining_min_tokens=max(0, request.min_new_tokens - output_count)",
        "remaining_min_tokens=request.min_new_tokens",
        "after a replay the minimum begins anew",
    ),
    (
        "remaining_max_tokens=request.max_new_tokens - output_count",
        "remaining_max_tokens=request.max_new_tokens",
        "after a replay the maximum begins anew",
    ),
    (
        "ignore_eos=request.ignore_eos",
        "ignore_eos=False",
        "end of text ends whom it should not",
    ),
    (
        "stop_ids=request.stop_ids",
        "stop_ids=request.stop_ids[:1]",
        "only the first stop id is passed on",
    ),
)

DRAFT = bugs_in(
    "draft.py",
    (
        "        residency.pending_samples += 1\n        self.tokens_left -= 1\n",
        "        residency.pending_samples += 1\n",
        "decode rows take nothing of the token budget",
    ),
    (
        "        residency.pending_samples += 1\n        self.tokens_left -= 1\n",
        "        self.tokens_left -= 1\n",
        "a decode row's sample is not counted among those to come",
    ),
    (
        "is_sampled = token_count >= residency.prefill_left",
        "is_sampled = token_count > residency.prefill_left",
        "a prompt's last chunk does not sample",
    ),
    (
        "            self.is_lease_possible = False\n",
        "            pass\n",
        "a lease goes on with a prompt in part read",
    ),
    (
        "if token_count > 1 or not is_sampled:",
        "if not is_sampled:",
        "the time of a prompt is taken for that of a decode step",
    ),
    (
        "        self.tokens_left -= token_count\n",
        "        self.tokens_left -= 1\n",
        "a chunk takes one token of the budget",
    ),
    (
        "        group.next_plan_number += 1\n",
        "",
        "all plans have one number",
    ),
    (
        "PlanInFlight(number, self.rows, num_steps, self.is_decode)",
        "PlanInFlight(number, self.rows, 1, self.is_decode)",
        "a lease is remembered as one step",
    ),
    (
        "retires, group.retires = group.retires, []",
        "retires = group.retires",
        "retires are sent again with every plan",
    ),
    (
        "retires, group.retires = group.retires, []",
        "retires, group.retires = group.retires[:1], []",
        "of several retires in a plan the first alone is sent",
    ),
    (
        "        group.is_retire_urgent = False\n",
        "",
        "once urgent, retiring stays urgent: plans without work follow",
    ),
    (
        "    residency.granted_count = len(residency.blocks)\n",
        "",
        "a block is granted again with every plan",
    ),
    (
        "if residency.granted_count < len(residency.blocks):",
        "if residency.granted_count <= len(residency.blocks):",
        "every plan grants every row no block",
    ),
    (
        "residency.blocks[first_index:]",
        "residency.blocks[first_index : first_index + 1]",
        "of several new blocks one is granted",
    ),
    (
        "        or row.kv_token_limit != kv_token_limit\n",
        "",
        "a row keeps its KV limit when its sequence gets a block",
    ),
    (
        "        or row.token_count != token_count\n",
        "",
        "a row keeps its token count from chunk to chunk",
    ),
    (
        "        or row.sample != is_sampled\n",
        "",
        "a row keeps from chunk to chunk whether it samples",
    ),
)

LEASE = bugs_in(
    "lease.py",
    (
        "seconds = device_seconds / num_steps",
        "seconds = device_seconds",
        "the time of a lease is taken for that of a step",
    ),
    (
        "            return 1\n",
        "            return limit\n",
        "the first lease is as long as can be",
    ),
    (
        "int(seconds / self._seconds)",
        "int(seconds / self._seconds) + 1",
        "a lease has one step more than there is time for",
    ),
    (
        "self._seconds += _SMOOTHING * (seconds - self._seconds)",
        "self._seconds -= _SMOOTHING * (seconds - self._seconds)",
        "a slower step makes leases longer",
    ),
)
