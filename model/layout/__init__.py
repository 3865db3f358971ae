"""Comes in: the embedding of cells. Goes out: a two-dimensional layout and clusters of them.

`process.py` is for `model/tasks`; the rest runs in the process that it starts.
"""
