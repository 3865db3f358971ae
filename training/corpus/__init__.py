"""Files of counts and expression profiles in; one sharded sparse corpus on disk out, read by row number.

Imports ``scpalm.model`` only. Everything else in ``training`` may use it.
"""
