"""A bundle or a run, and labelled cells, in; scores beside baselines, tables and reports out.

Called by the command line only.
"""
