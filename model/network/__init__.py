"""Room network."""
