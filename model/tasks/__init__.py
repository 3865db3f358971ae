"""Tasks: what can be computed for cells. One file per task; the registry finds them.

In: options and prepared cells. Out: matrices with one row per cell. Used by the engine and by all parts of the service.
"""
