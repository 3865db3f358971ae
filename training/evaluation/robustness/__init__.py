"""Counts and embeddings in; how far an embedding moves when counts or genes are missing out.

Called by the command line only.
"""
