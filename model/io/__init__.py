"""Files in, cells out: h5ad, zarr and AnnData objects, read in parts and validated before anything is computed.

Used by the engine, the codecs and the corpus. A file is hostile: sizes and types are checked before any allocation.
"""
