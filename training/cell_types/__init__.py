"""The names that sources give to cell types in; readable names, broad types and Cell Ontology ids out.

Imports nothing of the project. Everything else in ``training`` may use it.
"""
