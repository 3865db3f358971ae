"""The page /docs needs no other server. (Its rendering in a browser is tested by hand.)"""

from __future__ import annotations

import re

from tests.app.fakes import Client


def test_the_page_and_its_assets_are_local(client: Client) -> None:
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


def test_the_policy_forbids_other_servers_and_inline_scripts(client: Client) -> None:
    policy = client.get("/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "http" not in policy
    assert "<script>" not in client.get("/docs").text


def test_other_files_of_the_package_are_not_served(client: Client) -> None:
    for name in ("redoc.standalone.js", "..%2fcore.py", "__init__.py"):
        assert client.get(f"/docs/{name}").status_code == 404
