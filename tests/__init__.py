"""A package of its own: dependencies that install a top-level `tests` must not hide it."""
