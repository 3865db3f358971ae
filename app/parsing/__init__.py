"""Parsing: uploads in, prepared cells out; results in, encoded answers out. All of it in child processes with limits.

Used by execution (cells) and http (answers). Nothing here trusts a child: messages are JSON and raw arrays.
"""
