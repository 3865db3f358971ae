"""The API description at /openapi.json. In: routes, tasks and formats; out: one document with typed bodies and answers.

`document.py` completes what FastAPI writes; routes call `components`, `bodies`, `answers`, `errors` and `headers`.
"""
