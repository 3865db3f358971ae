"""Readers. In: h5ad files, zarr stores and AnnData objects. Out: `CellMatrix` chunks, validated as they are read.

Used by the engine, the codecs and training. Files are untrusted: sizes and types are checked before any allocation.
"""
