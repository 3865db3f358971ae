"""Known drugs: names, ids or structures in; a drug of the table, or a new one, out.

Called by the heads, the ic50 task, ``GET /drugs`` and training.
"""
