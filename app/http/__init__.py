"""HTTP: a request comes in, a response goes out. Start with `request.py`, the path of a request with cells.

Only `main.py` and `v2` use it. Routes call jobs, serving, execution and parsing, which never import this package.
"""
