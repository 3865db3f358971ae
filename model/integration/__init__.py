"""Integration: embeddings of cells with their batches in, embeddings without the batches out.

Called by the task `integrate`, the command of that name, and evaluation.
"""
