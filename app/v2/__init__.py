"""The Open Inference Protocol, version 2: tensors come in, tensors go out. `routes.py` has the routes.

Only `main.py` uses it. It runs requests through `http.request`, like the task routes.
"""
