"""Values of cells. In: a `CellMatrix`. Out: what its values are, and log1p CP10K. Raises InputError where unclear."""
