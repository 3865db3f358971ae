"""The page of /docs needs nothing but this server. (A browser's view of it is tested by hand.)"""

from __future__ import annotations

import re

from tests.app.fakes import Client


def test_the_page_and_all_it_names_come_from_here(client: Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 4 and not any("//" in name for name in named)
    for name in named:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200 and len(answer.content) > 50, name
        assert answer.headers["content-type"].split("/")[0] in ("text", "image")
    assert '"openapi.json"' in client.get("/docs/start.js").text
    assert client.get("/openapi.json").status_code == 200


def test_the_policy_lets_no_other_server_and_no_inline_script_in(client: Client) -> None:
    policy = client.get("/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "http" not in policy
    assert "<script>" not in client.get("/docs").text


def test_other_files_of_the_package_are_not_served(client: Client) -> None:
    for name in ("redoc.standalone.js", "..%2fcore.py", "__init__.py"):
        assert client.get(f"/docs/{name}").status_code == 404
