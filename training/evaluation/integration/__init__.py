"""Cells with labels and batches, and ways to integrate them, in; scIB scores out.

Called by the command line only.
"""
