"""The ledger of jobs: records which jobs were accepted, which process runs each, and which chunks are done.

One interface, implemented in SQLite for one process and in Redis for many. Used by jobs, http and the command line.
"""
