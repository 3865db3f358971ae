"""HTTP: a request in, a response out. `request.py` is the way of a request with cells, read from top to bottom.

Routes call down into jobs, serving, execution and parsing; nothing below calls back.
"""
