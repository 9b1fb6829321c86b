"""What a row's filters have kept so far, and how typical_p measures it."""
