"""The router: text becomes plans here. It knows no tensors and imports no sibling package."""

__version__ = "0.1.0"
