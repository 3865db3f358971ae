"""Tasks: what can be computed for cells. One task a file, found by the registry.

In: options and prepared cells. Out: matrices with one row a cell. Used by the engine, the service and the command line.
"""
