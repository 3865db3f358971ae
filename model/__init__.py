"""Shared by the service and by training: cells, genes, networks, bundles and the engine.

In: cells from a file or an AnnData. Out: embeddings, codes, imputed values, drug response. Imports neither side.
"""
