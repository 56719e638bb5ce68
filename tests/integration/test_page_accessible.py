"""The page for everybody: keyboard, screen reader, contrast, phone width, dark scheme, reduced motion. In Chromium."""

from typing import Any

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed (extra dev)")

from playwright.sync_api import Browser, Page, expect

from tests.integration.browser import PHONE, ask, connected, finished, overflow, watched
from tests.integration.page_server import engine, until

pytestmark = pytest.mark.slow


def test_keyboard_alone_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the prompt")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("block")
    for _ in range(5):  # four examples, then the modes
        page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name="Auto")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Parallel")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    finished(page)
    expect(page.get_by_role("button", name="Generate")).to_be_focused()
    assert engine.requests[-1].parallel.mode == "force"
    page.get_by_label("Prompt").fill("wait")
    page.get_by_label("Prompt").press("ControlOrMeta+Enter")
    until(lambda: engine.open == 1)
    page.keyboard.press("Escape")
    until(lambda: engine.open == 0)


def test_focus_stays_on_the_button_that_was_pressed(page: Page) -> None:
    go, cancel = (page.get_by_role("button", name=name) for name in ("Generate", "Cancel"))
    page.get_by_label("Prompt").fill("wait")
    go.focus()
    page.keyboard.press("Enter")
    until(lambda: engine.open == 1)
    expect(go).to_be_focused()
    expect(go).to_be_disabled()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Cancelled. What had come is shown.")
    until(lambda: engine.open == 0)
    expect(cancel).to_be_focused()
    expect(cancel).to_be_disabled()
    expect(go).to_be_enabled()


def test_screen_readers_hear_steps_and_not_tokens(page: Page) -> None:
    page.evaluate(
        """() => {
            window.heard = [];
            const status = document.getElementById("status");
            new MutationObserver(() => heard.push(status.textContent)).observe(status, { childList: true });
        }"""
    )
    ask(page, "block")
    last = finished(page)
    heard = page.evaluate("heard")
    assert [text.split(" after")[0] for text in heard[:-1]] == [
        "Generating …",
        "Block 1 forked into 2 branches.",
        "Block 2 forked into 2 branches.",
        "Block 2 joined",
        "Block 1 joined",
    ]
    assert heard[-1] == last
    live = page.locator("[aria-live], [role=alert], [role=status]").evaluate_all("nodes => nodes.map((n) => n.id)")
    assert live == ["status", "error"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(browser: Browser, url: str, scheme: Any, viewport: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed (extra dev)")
    size = {} if viewport is None else {"viewport": viewport}
    with watched(browser, url, color_scheme=scheme, **size) as page:
        ask(connected(page), "block")
        finished(page)
        ask(page, "plain", "off")
        page.wait_for_selector("#history tbody tr:nth-child(2)")
        page.get_by_text("Options").click()
        page.get_by_text("The same as a table").click()
        ask(page, "block")
        finished(page)
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_phone_needs_no_sideways_scrolling(browser: Browser, url: str) -> None:
    with watched(browser, url, viewport=PHONE) as page:
        for question in ("block", "long", "hostile"):
            ask(connected(page), question)
            finished(page)
            assert overflow(page) <= 0, question


def test_dark_scheme_is_dark(browser: Browser, url: str) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with watched(browser, url, color_scheme=scheme) as page:
            grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert grounds == {"light": "rgb(244, 245, 248)", "dark": "rgb(16, 18, 24)"}


def test_reduced_motion_has_no_animation(browser: Browser, url: str) -> None:
    with watched(browser, url, reduced_motion="reduce") as page:
        ask(connected(page), "block")
        page.wait_for_selector(".branch.running")
        running = page.evaluate("document.getAnimations().length")
        finished(page)
        assert running == 0
