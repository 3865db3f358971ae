"""HDF5 files. In: an untrusted h5ad file. Out: `CellMatrix` chunks, columns and tables.

Every link, type and size is checked before it is used.
"""
