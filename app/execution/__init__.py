"""From queued items to results: fair device batches, one worker per device, and a supervisor that restarts it.

In: leases of the queue; out: settled results. Opened by `serving`; http and jobs use `execution.execution`.
"""
