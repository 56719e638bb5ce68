"""The page in Chromium, over an engine that is told what to say: tree, time line, figures, and hostile text."""

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed (extra dev)")

from playwright.sync_api import Browser, Page, expect

from tests.integration.browser import ask, finished, watched
from tests.integration.page_server import HOSTILE

pytestmark = pytest.mark.slow


def test_blocks_in_blocks_stand_under_their_branch(page: Page) -> None:
    ask(page, "block")
    finished(page)
    outer = page.get_by_role("region", name="Block 1: 2 branches")
    branch = outer.get_by_role("article", name="Branch 2: light")
    inner = branch.get_by_role("region", name="Block 2: 2 branches")
    expect(inner.get_by_role("article", name="Branch 2.1: sun")).to_contain_text("one")
    expect(inner.get_by_role("article", name="Branch 2.2: lamp")).to_contain_text("cut at its limit")
    expect(branch.locator(":scope > .body > p")).to_have_text(["before", "both help", "last words"])
    expect(branch.locator(":scope > .branch-foot")).to_contain_text("done · 4 tokens · moved")
    expect(page.locator("#answer > p")).to_have_text(["Look.", "get up", "Done."])
    expect(page.locator("#answer")).not_to_contain_text("<Parallel>")
    expect(page.locator("#figures")).to_contain_text("stray_tag")


def test_time_line_tells_when_and_where(page: Page) -> None:
    ask(page, "block")
    finished(page)
    chart = page.locator("#timeline svg")
    assert [chart.locator(f".{sign}").count() for sign in ("fork", "join")] == [2, 2]
    labels = chart.locator("text:has(.lane)").all_text_contents()
    assert [label.split()[0] for label in labels] == ["answer", "1", "2", "2.1", "2.2", "in"]
    assert labels[1:3] == ["1 replica 1", "2 replica 2"]
    told = chart.get_attribute("aria-label") or ""
    assert "block 1 with 2 branches forked at" in told
    assert "one after the other it would have taken" in told
    page.get_by_text("The same as a table").click()
    rows = page.locator("#time-table tbody tr")
    assert rows.count() == 4
    assert rows.nth(1).locator("td").all_inner_texts()[:4] == ["1", "2", "light", "2 (app#Engine#b)"]


def test_bars_of_branches_lie_over_each_other_between_fork_and_join(page: Page) -> None:
    ask(page, "block")
    finished(page)
    chart = page.locator("#timeline svg")
    left, right = "({ x }) => x.baseVal.value", "({ x, width }) => x.baseVal.value + width.baseVal.value"
    ends = "bars => [Math.min(...bars.map(LEFT)), Math.max(...bars.map(RIGHT))]".replace("LEFT", left)
    # The first bars are those of the lanes; that of the same tokens one after the other comes last.
    (a, b), (c, d) = (
        chart.locator(f".bar.{hue}").evaluate_all(f"bars => ({ends.replace('RIGHT', right)})(bars.slice(0, {bars}))")
        for hue, bars in (("hue-0", 2), ("hue-1", 3))
    )
    fork = chart.locator(".fork").last.evaluate("sign => { const box = sign.getBBox(); return box.x + box.width / 2 }")
    join = chart.locator(".join").last.evaluate("sign => sign.cx.baseVal.value")
    assert max(a, c) < min(b, d)
    assert fork <= min(a, c) + 1 and max(b, d) <= join + 1


def test_figures_are_those_of_the_response(page: Page) -> None:
    ask(page, "block")
    finished(page)
    names, values = (page.locator(f"#figures {part}").all_inner_texts() for part in ("dt", "dd:not(.note)"))
    shown = dict(zip(names, values, strict=True))
    assert (shown["Critical path"], shown["Parallelism"]) == ("20", "1.50\u00d7")
    assert float(shown["Speed-up"][:-1]) > 1
    ask(page, "plain", "off")
    page.wait_for_selector("#history tbody tr:nth-child(2)")
    assert page.locator("#history tbody tr td:first-child").all_inner_texts() == ["auto", "sequential"]


def test_hostile_model_text_stays_text(page: Page) -> None:
    ask(page, "hostile")
    finished(page)
    assert page.title() == "Multiverse playground"
    assert page.locator("#answer :is(img, script), #timeline :is(img, script), table :is(img, script)").count() == 0
    expect(page.get_by_role("article").first).to_contain_text(HOSTILE)
    expect(page.locator("#time-table")).to_contain_text(HOSTILE)


def test_hostile_prompt_stays_text(page: Page) -> None:
    ask(page, f"echo {HOSTILE}")
    finished(page)
    expect(page.locator("#answer")).to_have_text(HOSTILE)
    expect(page.locator("#curl")).to_contain_text("<img src=x")
    ask(page, f"echo {HOSTILE}")
    page.wait_for_selector("#history tbody tr:nth-child(2)")
    assert page.title() == "Multiverse playground"
    assert page.locator("main img").count() == 0


def test_browser_refuses_markup_and_inline_code_even_if_the_page_had_a_bug(browser: Browser, url: str) -> None:
    with watched(browser, url, ("Content Security Policy", "This document requires 'Trusted")) as page:
        refused = page.evaluate(
            "() => { try { document.body.innerHTML = 'x'; return '' } catch (e) { return e.name } }"
        )
        assert refused == "TypeError"
        handler = """() => {
            try { document.body.setAttribute("onclick", "1") } catch (error) { return error.name }
        }"""
        assert page.evaluate(handler) == "TypeError"
        page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.append("document.title = 'owned'");
                try { document.body.append(script) } catch {}
            }"""
        )
        assert page.title() == "Multiverse playground"


def test_other_pages_cannot_frame_it(browser: Browser, url: str) -> None:
    page = browser.new_page()
    page.set_content(f'<iframe src="{url}"></iframe>')
    page.wait_for_timeout(500)
    assert [frame.locator("#prompt").count() for frame in page.frames] == [0, 0]
    page.close()
