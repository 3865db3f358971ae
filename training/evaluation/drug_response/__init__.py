"""A drug-response run or a bundle in; rows of scores and references, and figures, out.

Called by the command line and by the export of heads.
"""
