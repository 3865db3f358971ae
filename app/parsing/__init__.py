"""Parsing in child processes with limits: uploads become prepared cells, results become encoded responses.

Used by serving, jobs and http. Children are not trusted: their messages are JSON and raw arrays.
"""
