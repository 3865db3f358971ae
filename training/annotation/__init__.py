"""A corpus and a bundle in; the bundle's reference of cell types, calibrated, out.

Uses corpus, cell_types and export. Used by the command line.
"""
