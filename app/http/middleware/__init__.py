"""Room middleware."""
