"""Count files and a bundle in; rows that compare imputed values with held-back counts out.

Called by the command line.
"""
