"""The command ``scpalm key``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

_HOW_TO = """
The service stores only the hash, so this key cannot be shown again.

1. Add the entry to the file that SCPALM_API_KEYS_FILE names. The service reads the file again when it changes:

   {{"keys": [{entry}]}}

   An entry may also have "rows_per_minute" and "bytes_per_minute", the budget of the key, and "paths", the beginnings
   of the paths that it may use, such as ["/embed", "/jobs", "/models"]. Without them nothing is limited.

2. Send the key with every request, as 'Authorization: Bearer KEY' or 'X-API-Key: KEY':

   curl --fail-with-body -H 'Authorization: Bearer {key}' -F file=@cells.h5ad localhost:8000/embed -o out.h5ad

   In Python: scpalm.Client("http://localhost:8000", key="{key}")"""


def key(
    name: Annotated[str, typer.Argument(help="Name of the user or client of the key.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the key and its entry as JSON.")] = False,
) -> None:
    """Create an API key. Print it, its entry for the file in SCPALM_API_KEYS_FILE, and how to use both.

    Example: scpalm key alice
    """
    from scpalm.app.auth.keys import new_key

    secret, entry = new_key(name)
    if as_json:
        typer.echo(json.dumps({"key": secret, "entry": entry}))
        return
    typer.echo(f"key: {secret}\nentry: {json.dumps(entry)}")
    # On stderr, so that a script that stores the output gets the two lines alone.
    typer.echo(_HOW_TO.format(entry=json.dumps(entry), key=secret), err=True)
