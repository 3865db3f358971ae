"""A drug-response run or a bundle in; rows of its scores beside references, and figures, out.

Called by the command line and by the export of heads.
"""
