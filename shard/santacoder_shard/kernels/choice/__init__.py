"""Where a step ends: the likeliest id of a row, and the slot's state moved on by it."""
