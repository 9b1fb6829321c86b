"""A shard group without a model: the real internal protocol, at known times, at little cost."""
