"""Layer norm of whole rows."""
