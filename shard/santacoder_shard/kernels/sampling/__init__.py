"""From logits to an id by a row's own options, on the GPU; `sampler.py` is the specification."""
