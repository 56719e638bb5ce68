"""The page in Chromium against the Serve application with two engine replicas of the builtin model.

With ``MULTIVERSE_PICTURES`` the pictures of docs/playground.md are put into the folder it names.
"""

import os
import time
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest

pytest.importorskip("playwright", reason="Playwright is not installed (extra dev)")

from playwright.sync_api import Browser, Page, expect

from tests.integration.browser import PHONE, ask, chromium, connected, finished, overflow, save, watched
from tests.integration.page_server import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TIPS = "List four tips for waking up early. One sentence for each."
ROUNDS = "Amy scored 4 7 2 and 1 8 3. Tom scored 5 2 6 and 9 1 4. For each, add up the best of each round."
STEPS = "From January go 4 months back, then 3 months back, then 2 months back, then 3 months forward. What comes then?"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Before the engines, which would be started in vain where there is no Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(browser: Browser) -> Iterator[str]:
    from multiverse.application import free_port, serving
    from multiverse.config import AppConfig

    config = AppConfig.of(
        {
            "model": "builtin:multiverse-smollm2-135m",
            "replicas": 2,
            "placement": "spread",
            # A thread each: what engines leave of two cores is what the browser draws with.
            "engine": {"enforce_eager": True, "max_model_len": 2048, "kv_cache_gib": 1, "threads": 1},
            "access": {"keys_env": "MULTIVERSE_TEST_API_KEYS"},
        }
    )
    with serving(config, port=free_port(), quiet=True) as url:
        # The first requests give the engines their step times, without which no speed-up is told.
        for _ in range(2):
            for mode in ("auto", "off"):
                body = {"model": config.name, "messages": [{"role": "user", "content": TIPS}], "max_tokens": 160}
                httpx.post(f"{url}/chat/completions", json=body | {"parallel": {"mode": mode}}, timeout=120)
        yield url.removesuffix("v1")


def metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}metrics", timeout=30).text.splitlines()
    return float(next(line for line in lines if line.startswith(name + " ")).split()[-1])


def left(url: str) -> float:
    return metric(url, "multiverse_requests_running") + metric(url, "multiverse_leases")


RECORD = """() => {
  window.grown = [];
  const branch = ({ target }) => target.parentElement.closest(".branch")?.ariaLabel ?? "answer";
  const observer = new MutationObserver((records) => window.grown.push(records.map(branch)));
  observer.observe(document.getElementById("answer"), { characterData: true, subtree: true });
}"""
"""What grew, in its order: a list per time the page was drawn anew. Nothing is missed where the browser gets no time
while engines fill the cores, as looking now and then would."""


def recorded(page: Page) -> Page:
    page.evaluate(RECORD)
    return page


def until_growing(page: Page) -> None:
    """Asked from here: what waits in the page waits for its frames, of which a new browser has none for a while."""
    until(lambda: page.locator(".branch.running > .body > p").count() > 0, 60)


def grown(page: Page) -> list[list[str]]:
    return list(page.evaluate("window.grown"))


def test_branches_grow_side_by_side_and_join(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        ask(recorded(connected(page)), TIPS, max_tokens="512")
        finished(page)
        cards = page.get_by_role("article").all()
        assert len(cards) >= 3
        order = [branch for part in grown(page) for branch in part if branch != "answer"]
        assert set(order) == {card.get_attribute("aria-label") for card in cards}
        # One after the other, there would be one change fewer than branches.
        assert sum(one != next for one, next in pairwise(order)) > 2 * len(cards)
        expect(page.locator(".block .state").first).to_contain_text("joined after")
        assert [card for card in cards if len(card.locator(":scope > .body").inner_text()) < 10] == []
        replicas = {card.locator(":scope > .branch-foot > .replica").inner_text() for card in cards}
        assert replicas == {"replica 1", "replica 2"}
        expect(page.locator("#figures")).to_contain_text("Speed-up")
        assert page.locator("#timeline .saved-text, #timeline .end").count() >= 1


def test_sequential_answer_streams_without_blocks(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        ask(recorded(connected(page)), TIPS, "off", max_tokens="512")
        finished(page)
        assert len(grown(page)) > 2
        assert page.get_by_role("article").count() == 0
        expect(page.locator("#figures")).to_contain_text("1.00\u00d7")


def test_model_leaves_one_block_out_where_nothing_splits(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        ask(connected(page), STEPS)
        finished(page)
        assert page.get_by_role("article").count() == 0
        expect(page.locator("#time-hint")).to_contain_text("no block was opened")


def test_blocks_in_blocks(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        ask(connected(page), ROUNDS)
        finished(page)
        assert page.locator(".branch .block .branch").count() >= 4
        assert page.locator("#timeline .fork").count() == page.locator("#timeline .join").count() >= 3


def test_forced_block_has_its_width(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        ask(connected(page), "How do I sleep, eat and train well?", "force", width="3")
        finished(page)
        assert page.locator("#answer > .block > .branches > .branch").count() == 3


def test_cancel_frees_the_engines(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        # Hot, so that branches hardly end by themselves.
        ask(connected(page), "Tell a long story.", "force", width="4", max_tokens="1500", temperature="2")
        until_growing(page)
        page.keyboard.press("Escape")
        expect(page.get_by_role("status")).to_have_text("Cancelled. What had come is shown.")
        until(lambda: left(url) == 0, 10)


def test_refused_request_is_shown(browser: Browser, url: str) -> None:
    with watched(browser, url, ("Failed to load resource",)) as page:
        connected(page).evaluate("document.getElementById('max-tokens').removeAttribute('max')")
        ask(page, TIPS, max_tokens="999999")
        expect(page.get_by_role("alert")).to_contain_text("must be at most")


def test_prompt_with_markup_and_tags_stays_text(browser: Browser, url: str) -> None:
    hostile = "<img src=x onerror=\"document.title='owned'\"> <Parallel><Goal></Goal> Say it again."
    with watched(browser, url) as page:
        ask(connected(page), hostile, max_tokens="60")
        finished(page)
        assert page.title() == "Multiverse playground"
        assert page.locator("main img").count() == 0


def test_phone(browser: Browser, url: str) -> None:
    with watched(browser, url, viewport=PHONE) as page:
        ask(connected(page), TIPS)
        finished(page)
        assert overflow(page) <= 0


def test_pictures(browser: Browser, url: str) -> None:
    folder = os.environ.get("MULTIVERSE_PICTURES")
    if folder is None:
        pytest.skip("MULTIVERSE_PICTURES is not set (make screenshots sets it)")
    with watched(browser, url, viewport={"width": 1200, "height": 1240}) as page:
        # A page that has shown an answer: a new one's first seconds are jerky beside engines that fill the cores.
        ask(connected(page), "Say hello.", "off")
        finished(page)
        ask(page, TIPS, max_tokens="512")
        until_growing(page)
        while page.locator(".branch.running").count() >= 3 and len(page.locator(".branches").inner_text()) < 420:
            time.sleep(0.05)
        save(page, folder, "playground.png")
    with watched(browser, url, viewport={"width": 1200, "height": 900}, color_scheme="dark") as page:
        ask(connected(page), ROUNDS)
        finished(page)
        save(page, folder, "playground-dark.png", full_page=True)
    with watched(browser, url, viewport=PHONE, device_scale_factor=2) as page:
        ask(connected(page), TIPS)
        finished(page)
        page.set_viewport_size({"width": 360, "height": 1400})
        page.locator("#answer-card").evaluate("card => card.scrollIntoView()")
        save(page, folder, "playground-phone.png")
