"""Room common."""
