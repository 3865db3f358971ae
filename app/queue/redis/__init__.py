"""The queue in Redis Streams. In: items that a service submits; out: results that workers settle, each exactly once.

Opened by `scpalm.app.queue.transports.redis` only; `jobs` shares its lease scripts.
"""
