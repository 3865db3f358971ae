"""One transport per module. Each declares ``TRANSPORT``, a `scpalm.app.queue.registry.TransportKind`.

`scpalm.app.queue.registry` finds them; a new transport is a new file here. Modules import their client libraries late.
"""
