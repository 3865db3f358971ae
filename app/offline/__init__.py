"""Room offline."""
