"""Web pages for people: the API documentation at /docs. Only `main.py` includes them."""
