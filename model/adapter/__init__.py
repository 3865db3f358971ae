"""Adapters: a bundle's embedding in, an embedding adapted to a user's cells out, and the fit of an adapter.

Called by the tasks, by `scpalm.adapt` and by `scpalm-train adapt`.
"""
