"""A corpus in; the batches of each training step out, drawn from the seed and the step alone.

Used by stages and export.
"""
