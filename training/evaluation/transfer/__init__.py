"""Cells with labels and batches, and embeddings, in; accuracy of labels transferred between batches out.

Called by the command line only.
"""
