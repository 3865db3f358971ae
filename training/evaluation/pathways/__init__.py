"""Cells, a bundle and gene sets in; the genes and enriched terms of each code out.

Called by the command line.
"""
