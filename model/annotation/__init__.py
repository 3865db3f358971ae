"""Embedded cells and labelled, embedded cells in; a label, its probability and its distance for each cell out.

Imports bundle and neighbors. Used by tasks and the engine, and by training to write the reference of a bundle.
"""
