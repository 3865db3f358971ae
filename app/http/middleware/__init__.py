"""ASGI middleware around all routes: access log, API keys and deadlines, compression. Only `main.py` installs it."""
