"""The routes of the HTTP API, one router per file. `main.py` includes them, and v2 reuses the health checks."""
