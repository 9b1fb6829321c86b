"""One rank of a SantaCoder model: plans of integers in, sampled ids out. Knows no text."""
