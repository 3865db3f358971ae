"""The page at / is served from files of the release, with a policy that allows nothing inline and no other host."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from scpalm.app.auth.keys import new_key
from scpalm.app.http.web.page import BUILT
from tests.app.fakes import Client

WEB = BUILT.parent


def test_the_page_and_its_assets_are_local(client: Client) -> None:
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="\./([^"]+)"', page.text)
    assert len(named) == 3 and "//" not in "".join(named)
    for name in named:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"], name
    assert client.get("/page/licenses.txt").text.count("License: MIT") >= 3
    for name in ("index.html", "../index.html", "%2e%2e/index.html", "nothing.js"):
        assert client.get(f"/page/{name}").status_code == 404


def test_the_policy_allows_nothing_inline(client: Client) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "style-src 'self';" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert not re.search(r"<script[^>]*>[^<]|<style|\sstyle=|\son\w+=", page.text)


def test_an_unchanged_page_is_not_sent_again(client: Client) -> None:
    tag = client.get("/").headers["etag"]
    again = client.get("/", headers={"If-None-Match": tag})
    assert again.status_code == 304 and again.content == b""


def test_the_page_says_the_limits_of_the_service(client: Client) -> None:
    facts = client.get("/page/facts.json").json()
    assert facts["job_hours"] == 24 and facts["max_cells"] == 100_000 and facts["needs_key"] is False


def test_the_page_needs_no_key_and_everything_else_does(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    import json

    secret, entry = new_key("reader")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [entry]}))
    with TestClient(make_app(api_keys_file=keys), base_url="http://localhost") as client:
        assert client.get("/").status_code == 200
        assert client.get("/page/facts.json").json()["needs_key"] is True
        for path in ("/jobs", "/sample", "/jobs/x/view", "/jobs/x/cells"):
            assert client.get(path).status_code == 401, path
        assert client.get("/jobs", headers={"Authorization": f"Bearer {secret}"}).status_code in (200, 503)


def test_the_built_files_are_those_of_the_sources(tmp_path: Path) -> None:
    if shutil.which("node") is None or not (WEB / "node_modules").is_dir():
        pytest.skip("node and the packages of the page are not installed: cd app/web && npm ci")
    command = ["node", "node_modules/vite/bin/vite.js", "build", "--outDir", str(tmp_path / "built")]
    subprocess.run(command, cwd=WEB, check=True, capture_output=True)

    def content(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != "licenses.txt"]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    assert content(tmp_path / "built") == content(BUILT), "run make page"
