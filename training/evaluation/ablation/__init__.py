"""A corpus and labelled cells in; scores of model variants, all trained in the same way, out (paper Tables 5 to 7).

Called by the command line.
"""
