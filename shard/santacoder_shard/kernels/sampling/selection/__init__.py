"""Where a filter cuts: the last id that top_k, top_p or typical_p keeps."""
