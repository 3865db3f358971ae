"""Writers. In: outputs of tasks, block by block. Out: an AnnData or a copy of an h5ad file, with a note on the results.

Used by the engine, the codecs and the command line.
"""
