"""A corpus in; the batches of each training step out, drawn only from the seed and the step.

Used by stages and export.
"""
