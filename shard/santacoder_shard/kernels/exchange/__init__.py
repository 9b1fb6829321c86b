"""What ranks exchange, added up in rank order."""
