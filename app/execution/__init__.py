"""From queued items to results: fair device batches, one worker per device, and a supervisor that restarts it.

In: leases of the queue; out: settled results. `execution.execution` is the request's side. Opened by `serving`.
"""
