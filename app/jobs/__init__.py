"""Jobs: accepted requests come in; their results are computed in chunks and fetched later.

Opened by the service; used by http and the command line. `runner.py` runs jobs, `ledger` records their state.
"""
