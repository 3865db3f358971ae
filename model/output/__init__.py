"""Results written down: into a copy of an h5ad file or into an AnnData, with a note of what they are.

In: outputs of tasks, block by block. Used by the engine, the codecs and the command line.
"""
