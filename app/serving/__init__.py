"""Serving: model folders come in, served models go out, each with parsers, a queue and a device loop.

Used by the service, jobs and http. Requests hold their model, so that a replaced model ends only after its last one.
"""
