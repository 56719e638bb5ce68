"""A real Chromium for tests of the page, which watches what may never happen: errors, and requests to other hosts."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FAILED_LOAD = "Failed to load resource"
"""Chromium says so of every status of 400 and above."""
WIDE = {"width": 1200, "height": 900}
PHONE = {"width": 360, "height": 760}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """The page at ``url``. ``expected``: parts of console errors that the test provokes."""

    def __init__(self, browser: Browser, url: str, expected: tuple[str, ...] = (), **context: Any) -> None:
        self._context = browser.new_context(**{"viewport": WIDE, **context})
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(60_000)
        self.wrong: list[str] = []
        self._host = urlsplit(url).netloc
        self._expected = expected
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"uncaught: {error}"))
        self.page.on("request", self._asked)
        self.page.goto(url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in self._expected):
            self.wrong.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != self._host:
            self.wrong.append(f"request to another host: {request.url}")

    def close(self) -> None:
        self._context.close()


@contextmanager
def watched(browser: Browser, url: str, expected: tuple[str, ...] = (), **context: Any) -> Iterator[Page]:
    """A fresh page; at the end, that nothing went wrong in it."""
    watching = Watched(browser, url, expected, **context)
    try:
        yield watching.page
        assert not watching.wrong, watching.wrong
    finally:
        watching.close()


def connected(page: Page) -> Page:
    """Wait until the page knows the server's model."""
    page.wait_for_selector(".dot.up")
    return page


def ask(page: Page, prompt: str, mode: str = "auto", **options: str) -> None:
    """Fill in the form and send it. options: values of fields under `Options`, by their id."""
    page.get_by_label("Prompt").fill(prompt)
    page.locator(f"input[name=mode][value={mode}]").check()
    for id, value in options.items():
        page.evaluate("([id, value]) => { document.getElementById(id).value = value }", [id.replace("_", "-"), value])
    page.get_by_role("button", name="Generate").click()


def finished(page: Page) -> str:
    """Wait for the end of the answer; gives what the page said then."""
    expect(page.get_by_role("status")).to_contain_text("Finished", timeout=120_000)
    return page.locator("#status").inner_text()


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def save(page: Page, folder: str, name: str, **options: Any) -> None:
    page.screenshot(path=Path(folder) / name, **options)
