"""The page in Chromium, over an engine that is told what to say: failures, cancelling, keys, and the command line."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("playwright", reason="Playwright is not installed (extra dev)")

from playwright.sync_api import Browser, Page, Route, expect

from multiverse.serving.access.access import Access
from multiverse.serving.access.key_file import entry
from multiverse.serving.access.key_store import KeyStore
from tests.integration.browser import FAILED_LOAD, ask, connected, finished, watched
from tests.integration.page_server import engine, serving, until

pytestmark = pytest.mark.slow
KEY = "mv-alice-secret"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(entry("alice", KEY))
    return path


@pytest.fixture
def keyed(browser: Browser, keys: Path) -> Iterator[Page]:
    """The page of a server that asks for the key."""
    with serving(Access(KeyStore(keys))) as url, watched(browser, url, (FAILED_LOAD,)) as page:
        yield page


@pytest.fixture
def unconnected(browser: Browser, url: str) -> Iterator[tuple[Page, list[Route]]]:
    """A page that does not know the model, and its further requests for it, which wait."""
    held: list[Route] = []
    with watched(browser, url, (FAILED_LOAD,)) as page:
        connected(page).route("**/v1/models", lambda route: route.abort())
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
        page.unroute("**/v1/models")
        page.route("**/v1/models", lambda route: held.append(route))
        yield page, held


@pytest.mark.parametrize(
    ("question", "title", "detail"),
    [
        ("fail", "The model failed", "the engine failed the request: out of memory"),
        ("fail later", "The model failed", "the engine failed the request: out of memory"),
        ("lose", "The connection was lost", "The answer is incomplete. What had come is shown; try again."),
    ],
)
def test_failure_is_shown_and_the_next_request_works(
    browser: Browser, url: str, question: str, title: str, detail: str
) -> None:
    with watched(browser, url, (FAILED_LOAD, "ERR_INCOMPLETE_CHUNKED_ENCODING")) as page:
        ask(connected(page), question)
        expect(page.get_by_role("alert")).to_have_text(title + detail)
        if question != "fail":
            expect(page.locator("#answer")).to_contain_text("One")
        ask(page, "again")
        finished(page)
        expect(page.get_by_role("alert")).to_be_hidden()


def test_server_that_cannot_be_reached_is_said(browser: Browser, url: str) -> None:
    with watched(browser, url, (FAILED_LOAD,)) as page:
        connected(page)
        page.context.set_offline(True)
        ask(page, "block")
        expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
        page.context.set_offline(False)
        ask(page, "block")
        finished(page)


def test_busy_server_is_said(browser: Browser) -> None:
    with serving(running=1) as url, watched(browser, url, (FAILED_LOAD,)) as page, httpx.Client(base_url=url) as other:
        connected(page)
        body = {"model": "tiny", "messages": [{"role": "user", "content": "wait"}], "stream": True}
        with other.stream("POST", "v1/chat/completions", json=body):
            ask(page, "block")
            expect(page.get_by_role("alert")).to_contain_text("The server is busy")
            expect(page.get_by_role("alert")).to_contain_text("try again in")


def test_wrong_value_is_refused_by_the_form(page: Page) -> None:
    ask(page, "block", max_tokens="0")
    expect(page.get_by_label("Tokens at most")).to_be_focused()
    expect(page.get_by_role("status")).to_have_text("")


def test_cancel_ends_the_generation(page: Page) -> None:
    ask(page, "wait")
    until(lambda: engine.open == 1)
    expect(page.locator("#answer")).to_contain_text("One")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled. What had come is shown.")
    expect(page.locator("#time-hint")).to_have_text("Cut off before its end.")
    until(lambda: engine.open == 0)
    expect(page.locator("#answer")).to_contain_text("One")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_leaving_the_page_ends_the_generation(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        ask(connected(page), "wait")
        until(lambda: engine.open == 1)
    until(lambda: engine.open == 0)


def test_generating_twice_before_the_model_is_known_asks_once(unconnected: tuple[Page, list[Route]]) -> None:
    page, held = unconnected
    before = len(engine.requests)
    page.get_by_label("Prompt").fill("wait")
    for _ in range(2):
        page.get_by_label("Prompt").press("ControlOrMeta+Enter")
    expect(page.get_by_role("status")).to_have_text("Connecting …")
    page.wait_for_timeout(300)
    for route in held:
        route.continue_()
    expect(page.locator("#answer")).to_contain_text("One")
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("Cancelled. What had come is shown.")
    until(lambda: engine.open == 0)
    assert (len(held), len(engine.requests) - before) == (1, 1)


def test_cancel_before_the_model_is_known(unconnected: tuple[Page, list[Route]]) -> None:
    page, _ = unconnected
    ask(page, "block")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled.")
    page.unroute("**/v1/models")
    ask(page, "block")
    finished(page)


def test_key_is_asked_for_kept_in_the_tab_and_forgotten(keyed: Page, keys: Path) -> None:
    page, field = keyed, keyed.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    field.fill("mv-wrong")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("the API key is not known here")
    expect(field).to_be_focused()
    field.fill(KEY)
    field.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Connected to tiny.")
    expect(page.get_by_label("Prompt")).to_be_focused()
    expect(field).to_be_hidden()
    ask(page, "block")
    finished(page)
    shown = page.locator("#curl").inner_text()
    assert '-H "authorization: Bearer $KEY"' in shown
    assert KEY not in page.content() + page.url
    ran = subprocess.run(
        ["bash", "-c", shown],
        env=os.environ | {"KEY": KEY},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ran.stdout.rstrip().endswith("data: [DONE]")
    page.reload()
    connected(page)
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    keys.write_text("[]")
    page.wait_for_timeout(1500)
    ask(page, "block")
    expect(page.get_by_role("alert")).to_contain_text("The API key is missing or not known")
    expect(field).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize("pasted", ["mv-alice\u2013secret", "mv-alic\u00e9-secret", "mv-alice secret"])
def test_what_no_header_can_carry_is_refused_by_the_form(keyed: Page, pasted: str) -> None:
    field = keyed.get_by_label("Key", exact=True)
    field.fill(pasted)
    field.press("Enter")
    expect(keyed.get_by_role("alert")).to_contain_text("This is no API key")
    expect(field).to_be_focused()
    assert keyed.evaluate("sessionStorage.length") == 0
    field.fill(f" {KEY} ")
    field.press("Enter")
    connected(keyed)
    expect(keyed.get_by_role("alert")).to_be_hidden()


def test_key_is_kept_once_it_was_accepted_and_can_be_forgotten_without_the_server(keyed: Page) -> None:
    page, field = keyed, keyed.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    page.context.set_offline(True)
    field.fill(KEY)
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    assert page.evaluate("sessionStorage.length") == 0
    page.context.set_offline(False)
    field.press("Enter")
    connected(page)
    assert page.evaluate("sessionStorage.length") == 1
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    page.get_by_role("button", name="Forget the API key").click()
    expect(field).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0


def test_copied_command_sends_the_same(browser: Browser, url: str) -> None:
    with watched(browser, url, permissions=["clipboard-read", "clipboard-write"]) as page:
        connected(page).get_by_label("Prompt").fill('it\'s "quoted" $HOME `x` \\ \n<b>')
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("status")).to_have_text("The command was copied.")
        command = page.evaluate("navigator.clipboard.readText()")
        assert "KEY" not in command
        subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=20)
        assert engine.requests[-1].question == 'it\'s "quoted" $HOME `x` \\ \n<b>'
