"""Arrays of cells and their labels in; scores and rows of a results table out.

Used by export, drug_response and evaluation. Imports ``scpalm.model`` only.
"""
