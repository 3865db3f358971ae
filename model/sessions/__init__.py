"""Room sessions."""
