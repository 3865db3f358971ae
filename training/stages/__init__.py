"""A corpus and options in; trained weights of stage 1 (pathways) and stage 2 (cells) out.

Called by the command line, export and the ablations.
"""
