"""Cells simulated from expression profiles. In: profile files, and real cells that show the noise. Out: counts.

Called by `build` and the corpus command.
"""
