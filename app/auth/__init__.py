"""Room auth."""
