"""A corpus and labelled cells in; scores of model variants trained alike out (paper Tables 5 to 7).

Called by the command line.
"""
