"""Room clustering."""
