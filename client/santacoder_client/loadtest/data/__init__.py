"""Where prompts come from: made from a seed, cut from files, or read; nothing is downloaded."""
