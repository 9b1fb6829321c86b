"""Text on its way in and out: prompts to token ids, ids to whole characters and stop strings."""
