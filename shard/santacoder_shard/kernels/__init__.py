"""The model's operations: a folder each, a file an implementation; `reference.py` specifies."""
