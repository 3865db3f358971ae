"""The linear read-out f of a cell: sparse values in, projections on the components of the corpus out.

NumPy only. Sessions, the network and training call it.
"""
