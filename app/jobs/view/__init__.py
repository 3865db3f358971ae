"""In: a job that has succeeded. Out: one value per cell at a time, for a page that shows the cells.

`view.py` is for `app/http`; it keeps what it computes among the files of the job.
"""
