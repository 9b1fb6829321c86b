"""Where a step begins: who runs which token at which position, and its first residual row."""
