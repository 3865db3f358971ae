"""Comes in: a job that has succeeded. Goes out: one value per cell at a time, for whoever looks at the cells.

`view.py` is for `app/http`; it keeps what it computes among the files of the job.
"""
