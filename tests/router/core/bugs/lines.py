"""Seeded bugs of the queue: whose turn it is, and what each caller has had."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

WAITING = bugs_in(
    "waiting.py",
    (
        "            insort(self._restored, sequence, key=_order)\n",
        "            self._restored.insert(0, sequence)\n",
        "those that ran when a group died come back in any order",
    ),
    (
        "        if self._restored or not self._count:\n"
        "            return self._restored[0] if self._restored else None\n",
        "",
        "those that ran when a group died wait for ever",
    ),
    (
        "            sequence.is_restored = False\n",
        "",
        "who outlived a group once goes first ever after",
    ),
    (
        "place = (since - priority * self._aging_seconds, since)",
        "place = (since + priority * self._aging_seconds, since)",
        "the lowest class goes first",
    ),
    (
        "place = (since - priority * self._aging_seconds, since)",
        "place = (-priority * self._aging_seconds, since)",
        "a class that waits does not rise",
    ),
    (
        "place = (since - priority * self._aging_seconds, since)",
        "place = (since, since)",
        "classes are ignored",
    ),
    (
        "        if not share.waiting_count:\n            self._since",
        "        if True:\n            self._since",
        "every arrival makes its class wait anew",
    ),
    (
        "        if not share.waiting_count:\n            self._since",
        "        if False:\n            self._since",
        "a class in which nobody waits rises too",
    ),
    (
        "            self._since[priority] = now\n            if",
        "            if",
        "a class that has risen stays above",
    ),
    (
        "            if sequence.generation == 1:\n",
        "            if True:\n",
        "a preempted sequence is charged again",
    ),
    (
        "            if sequence.generation == 1:\n",
        "            if False:\n",
        "nobody is charged for a turn",
    ),
    (
        "        sequence.is_held = True\n        self._leave_slot(sequence)\n",
        "        sequence.is_held = True\n",
        "a request that is held still counts as running",
    ),
    (
        "        elif not sequence.is_held:\n",
        "        else:\n",
        "a request that is held is looked for in the queue when it ends",
    ),
    (
        "        load.running_count += 1\n",
        "",
        "nobody counts what runs of a caller",
    ),
    (
        "        load.running_count -= 1\n",
        "        load.running_count -= sequence.is_ended\n",
        "a preempted sequence still counts as running",
    ),
    (
        "        if load.parked and not load.is_full:\n",
        "        if False:\n",
        "a caller who once ran all it may is never served again",
    ),
    (
        "unused = request.max_new_tokens - len(sequence.output_ids)",
        "unused = 0",
        "what a sequence did not use is not given back",
    ),
    (
        "unused = request.max_new_tokens - len(sequence.output_ids)",
        "unused = request.max_new_tokens",
        "a sequence that has ended gets all its new tokens back",
    ),
    (
        "        if sequence.generation:\n            unused",
        "        if True:\n            unused",
        "who never had a turn gets something back for it",
    ),
    (
        "        self.token_count += sign * sequence.token_count\n",
        "        self.token_count += sign * len(sequence.request.prompt_ids)\n",
        "the queue does not count the output of those that come back",
    ),
    (
        "        load.waiting_tokens += sign * sequence.token_count\n",
        "        load.waiting_tokens += sequence.token_count\n",
        "tokens that have left the queue still count for their caller",
    ),
    (
        "        self._forget(self._loads.get(request.caller.name))\n",
        "",
        "callers who have nothing are remembered for ever",
    ),
)

FAIR_SHARE = bugs_in(
    "fair_share.py",
    (
        "        if not line.sequences:\n"
        "            line.tag = max(line.tag, self._virtual_time)\n",
        "        if not line.sequences:\n",
        "an idle caller saves turns up",
    ),
    (
        "        if not line.sequences:\n"
        "            line.tag = max(line.tag, self._virtual_time)\n",
        "        if not line.sequences:\n            line.tag = self._virtual_time\n",
        "whoever leaves the queue for a moment owes nothing",
    ),
    (
        "        insort(line.sequences, sequence, key=_order)\n",
        "        line.sequences.append(sequence)\n",
        "a preempted sequence goes to the end of its caller's line",
    ),
    (
        "                return line.sequences[0]",
        "                return line.sequences[-1]",
        "in a caller's line the last goes first",
    ),
    (
        "            elif line.load.is_full:\n",
        "            elif False:\n",
        "a caller runs more than it may",
    ),
    (
        "return self.running_count >= self.caller.running_limit",
        "return self.running_count > self.caller.running_limit",
        "a caller runs one more than it may",
    ),
    (
        "        self._virtual_time = max(self._virtual_time, line.tag)\n",
        "",
        "the virtual time stands still",
    ),
    (
        "line.tag += sequence.work / line.weight",
        "line.tag += sequence.work",
        "weights are ignored",
    ),
    (
        "line.tag += sequence.work / line.weight",
        "line.tag += 1 / line.weight",
        "callers share requests, however large",
    ),
    (
        "line.tag += sequence.work / line.weight",
        "line.tag += sequence.token_count / line.weight",
        "callers share prompts alone",
    ),
    (
        "max(self._virtual_time, line.tag - work / line.weight)",
        "line.tag - work / line.weight",
        "what is given back is saved up",
    ),
    (
        "max(self._virtual_time, line.tag - work / line.weight)",
        "line.tag - work / line.weight if line.sequences else line.tag",
        "what is given back to an empty line is lost",
    ),
    (
        "        line.is_parked = False\n        line.tag = max(line.tag, self._virtual_time)\n",
        "        line.is_parked = False\n",
        "a caller makes up for what it might not run",
    ),
    (
        "        line.is_parked = False\n        line",
        "        line",
        "a line that was kept back once has no turn any more",
    ),
    (
        "            self._lines.clear()\n",
        "",
        "what callers owe outlives those they owe it to",
    ),
    (
        "if line.sequences and not line.is_parked:\n            heapq.heappush",
        "if not line.is_parked and len(line.sequences) == 1:\n            heapq.heappush",
        "of a caller's line only the last has a turn",
    ),
)
