"""Folders of processes and requests, arrays that spill to disk, the spool of large payloads, and clients of Redis.

In: bytes or arrays; out: the same bytes or arrays later. Any room above may call it; it knows none of them.
"""
