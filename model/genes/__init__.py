"""Genes and cells: counts with gene names in; rows in the order of the model's vocabulary out.

Used by every reader, the tasks and training. Knows no files and no network.
"""
