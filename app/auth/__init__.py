"""API keys and their budgets. In: a key and a path, or an amount; out: the key's entry, or a ServiceError.

Called by the HTTP guard and by requests with cells; calls only `storage` and `errors`.
"""
