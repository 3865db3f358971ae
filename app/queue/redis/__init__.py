"""Room redis."""
