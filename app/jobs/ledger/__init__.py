"""Which jobs were accepted, who runs each, and which chunks are done. In: a job and its chunks; out: its state.

One Protocol, kept in SQLite for one process or in Redis for many. Called by `jobs`, its routes and `scpalm jobs`.
"""
