"""Labelled files and embeddings in; rows of clustering, batch-mixing and annotation scores out.

Called by the command line.
"""
