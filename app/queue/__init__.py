"""The queue between requests and devices. In: a WorkItem; out: its WorkResult, from this process or another one.

Used by `execution` (both sides), `serving` (opens it) and `jobs` (its lease mechanism). One transport per file.
"""
