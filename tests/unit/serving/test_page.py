"""The playground's files: where they are, who may have them, and under which headers."""

import re
import tomllib
from collections.abc import AsyncIterator
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest

from multiverse.serving.access.access import Access
from multiverse.serving.access.key_file import entry
from multiverse.serving.access.key_store import KeyStore
from multiverse.serving.api.http import build_asgi
from multiverse.serving.page.routes import is_page
from tests.unit.serving.http_fakes import FakeEngine

STATIC = "platform/multiverse/serving/page/static"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server that asks for keys."""
    keys = tmp_path / "keys.yaml"
    keys.write_text(entry("alice", "mv-alice"))
    app = build_asgi(FakeEngine(lambda _: [], trained=True), "tiny", access=Access(KeyStore(keys)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://10.0.0.1") as client:
        yield client


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / STATIC).iterdir())


async def test_page_and_all_its_files_need_no_key(client: httpx.AsyncClient, root: Path) -> None:
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert [(await client.get(f"/page/{name}")).status_code for name in files(root)] == [200] * len(files(root))


@pytest.mark.parametrize(
    ("name", "type"),
    [("style.css", "text/css"), ("main.js", "text/javascript"), ("icon.svg", "image/svg+xml")],
)
async def test_files_have_their_type(client: httpx.AsyncClient, name: str, type: str) -> None:
    assert (await client.get(f"/page/{name}")).headers["content-type"].partition(";")[0] == type


async def test_without_keys_the_page_is_there_for_other_machines_but_the_api_is_not() -> None:
    app = build_asgi(FakeEngine(lambda _: []), "tiny", access=Access(None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://10.0.0.1") as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 403


async def test_everything_else_still_needs_a_key(client: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/metrics", "/openapi.json", "/page", "/pages/main.js", "/index.html"):
        assert (await client.get(path)).status_code == 401, path


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/style.css", "/page/icon.svg"])
async def test_nothing_but_the_own_files_may_run(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


async def test_unchanged_file_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/page/main.js")
    again = await client.get("/page/main.js", headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert (await client.get("/page/main.js", headers={"if-none-match": '"other"'})).status_code == 200
    assert first.headers["cache-control"] == "no-cache"


async def test_head_is_get_without_the_content(client: httpx.AsyncClient) -> None:
    head, get = await client.head("/"), await client.get("/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers


@pytest.mark.parametrize("name", ["no.js", "..%2Froutes.py", "..%2F..%2F..%2Fconfig.py", "%2Fetc%2Fpasswd"])
async def test_nothing_outside_the_folder_is_served(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"/page/{name}", headers={"authorization": "Bearer mv-alice"})
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "Not Found"


async def test_page_only_reads(client: httpx.AsyncClient) -> None:
    response = await client.post("/")
    assert response.status_code == 405
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_page_is_no_part_of_the_described_api(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json", headers={"authorization": "Bearer mv-alice"})).json()
    assert [path for path in document["paths"] if is_page(path)] == []


@pytest.mark.parametrize(("trained", "mode"), [(True, "auto"), (False, "off")])
async def test_models_tell_the_mode_of_requests_that_name_none(trained: bool, mode: str) -> None:
    app = build_asgi(FakeEngine(lambda _: [], trained=trained), "tiny")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        assert (await client.get("/v1/models")).json()["data"][0]["default_mode"] == mode


def test_page_loads_its_own_files_only(root: Path) -> None:
    texts = {path.name: path.read_text() for path in (root / STATIC).iterdir()}
    linked = re.findall(r'(?:src|href)="(?!#)([^"]+)"', texts["index.html"])
    imported = [name for text in texts.values() for name in re.findall(r'from "\./([^"]+)"', text)]
    assert {name.removeprefix("page/") for name in linked} | set(imported) == set(texts) - {"index.html"}
    hosts = {host for text in texts.values() for host in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)}
    assert hosts == {"http://www.w3.org"}  # the name of SVG's namespace, which nobody fetches


def test_page_is_packaged(root: Path) -> None:
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["multiverse"]
    names = [f"serving/page/static/{name}" for name in files(root)]
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_examples_are_the_questions_of_the_demo_and_one_that_nests(root: Path) -> None:
    from multiverse.demo import QUESTIONS

    text = (root / STATIC / "examples.js").read_text()
    assert [question for question in QUESTIONS if f'"{question}"' not in text] == []
    assert len(re.findall("label:", text)) == len(QUESTIONS) + 1
