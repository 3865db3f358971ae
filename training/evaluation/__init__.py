"""A bundle or a run, and labelled cells, in; scores of models and baselines, tables and reports out.

Called by the command line only.
"""
