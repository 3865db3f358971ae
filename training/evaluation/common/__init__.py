"""What several evaluations share: labelled files, embedding sources, baselines, tables and the HTML report.

Called by the other evaluation rooms and the command line.
"""
