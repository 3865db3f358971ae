"""Serving: bundles in folders in, models that answer out. Each has its parsers, its queue and its device loop.

Used by the service, jobs and http. A request holds the model that it uses, so that a successor does not end it.
"""
