"""Room genes."""
