"""The page in a real browser: Debian's chromium, without a screen, without a network.

Needs playwright (pip install 'hirelc[browser]') and /usr/bin/chromium (apt-get install chromium), or another
Chromium named by the environment variable CHROMIUM; skipped, with the reason, where one is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hirelc.report.compare import write_comparison
from hirelc.report.page import write_report
from report.damage import cut, edit_journal

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'hirelc[browser]'")
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: apt-get install chromium, or set CHROMIUM"),
]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


class Tab:
    """A page that was opened, and everything it complained about or asked the network for."""

    def __init__(self, browser: Any, file: Path, size: dict[str, int], scheme: str) -> None:
        context = browser.new_context(color_scheme=scheme, viewport=size, offline=True)
        self.complaints: list[str] = []
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.goto(file.resolve().as_uri())
        self.page.wait_for_selector("html[data-ready=yes]", timeout=30_000)

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(f"request: {url}")

    def wait_until_not(self, script: str, before: object) -> None:
        """Waits until a script returns something else (the page's own policy forbids waiting within it)."""
        for _ in range(100):
            if self.page.evaluate(script) != before:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"still {before!r}")

    def colour(self, selector: str) -> str:
        return str(self.page.evaluate("s => getComputedStyle(document.querySelector(s)).backgroundColor", selector))


@pytest.fixture(scope="module")
def file(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(finished, tmp_path_factory.mktemp("pages") / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_it_renders_without_a_complaint(browser: Any, file: Path, size: dict[str, int], scheme: str) -> None:
    tab = Tab(browser, file, size, scheme)
    assert tab.complaints == []
    drawn = tab.page.locator("figure[data-drawn=yes]").count()
    assert drawn == tab.page.locator("figure[data-chart]").count() == 10
    for figure in tab.page.locator("figure[data-chart]").all():
        assert figure.locator('svg [role="graphics-symbol"]').count() > 0
        box, chart = figure.bounding_box(), figure.locator("svg.marks").bounding_box()
        assert chart["x"] >= box["x"] and chart["x"] + chart["width"] <= box["x"] + box["width"] + 1
    assert tab.page.evaluate("document.documentElement.scrollWidth") == size["width"]  # nothing to scroll sideways


def test_every_view_of_every_chart_draws(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, DESK, "light")
    for choice in tab.page.locator("fieldset.views label").all():
        choice.click()
        figure = choice.locator("xpath=ancestor::figure")
        tab.page.wait_for_timeout(150)
        assert figure.locator('svg [role="graphics-symbol"]').count() > 0
    assert tab.complaints == []


def test_light_and_dark_follow_the_system_while_open(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, DESK, "light")
    ink = "() => document.querySelector('#front svg .role-axis-label text').getAttribute('fill')"
    light, paper = tab.page.evaluate(ink), tab.colour("body")
    tab.page.emulate_media(color_scheme="dark")
    tab.wait_until_not(ink, light)
    assert tab.colour("body") != paper
    assert tab.complaints == []


def test_headings_sort_the_table(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, DESK, "light")
    table = tab.page.locator("#kernel-table")
    titles = table.locator("thead button").all_inner_texts()
    column = titles.index("Bytes")

    def values() -> list[int]:
        cells = table.locator(f"tbody tr td:nth-child({column + 1})").all_inner_texts()
        return [int(cell.replace(",", "")) for cell in cells]

    as_written = values()
    assert as_written != sorted(as_written)
    head = table.locator("thead th").nth(column)
    head.locator("button").click()
    assert (values(), head.get_attribute("aria-sort")) == (sorted(as_written), "ascending")
    head.locator("button").press("Enter")
    assert (values(), head.get_attribute("aria-sort")) == (sorted(as_written, reverse=True), "descending")
    assert table.locator('th[aria-sort]:not([aria-sort="none"])').count() == 1
    table.locator("thead button").nth(titles.index("Kernel")).click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)


def test_hovering_a_point_shows_its_policy(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, DESK, "light")
    tab.page.locator("#front svg path[role=graphics-symbol]").first.hover()
    tip = tab.page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    words = tip.inner_text()
    assert "channels on average" in words
    assert "layers.0: " in words


def test_the_keyboard_reaches_every_point(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, DESK, "light")
    points = tab.page.locator("#front svg path[role=graphics-symbol]")
    assert tab.page.locator('#front svg [tabindex="0"]').count() == 1  # one stop of the Tab key
    points.first.focus()
    seen = []
    for _ in range(points.count()):
        tip = tab.page.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        seen.append(tip.inner_text())
        assert tab.page.evaluate("document.activeElement.getAttribute('aria-label')")
        tab.page.keyboard.press("ArrowRight")
    assert len(set(seen)) == points.count() == 6  # three measurements, the final file, original and control
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_selector("#vg-tooltip-element:not(.visible)", state="attached")


def test_tab_begins_at_the_content(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, DESK, "light")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert tab.page.locator(".skip").bounding_box()["x"] >= 0


def test_a_cycle_can_be_chosen_and_numbers_unfolded(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, DESK, "light")
    labels = "() => [...document.querySelectorAll('#votes svg path[role=graphics-symbol]')].map(m => m.ariaLabel).join()"
    second = tab.page.evaluate(labels)
    tab.page.locator("#votes select").select_option("1")
    tab.wait_until_not(labels, second)
    assert tab.page.locator('#votes svg [tabindex="0"]').count() == 1
    tab.page.locator("#votes details.numbers-behind summary").click()
    rows = tab.page.locator("#votes details.numbers-behind tbody tr")
    assert rows.count() == len(json.loads(tab.page.locator("#data-votes").inner_text())["rows"])
    assert tab.complaints == []


def test_a_script_in_a_name_does_not_run(browser: Any, copy: Path, tmp_path: Path) -> None:
    attack = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'

    def rename(events: list[dict[str, Any]]) -> None:
        text = json.dumps(events).replace("layers.0", json.dumps(attack)[1:-1])
        events[:] = json.loads(text)

    edit_journal(copy, rename)
    (copy / "model.hirelc").write_bytes(b"")
    tab = Tab(browser, write_report(copy, tmp_path / "attack.html"), DESK, "light")
    tab.page.locator("#budgets svg path[role=graphics-symbol]").first.hover()
    tab.page.locator("#vg-tooltip-element.visible").wait_for()
    tab.page.locator("#budgets details.numbers-behind summary").click()
    assert attack[:20] in tab.page.locator("#budgets details tbody").inner_text()
    assert tab.page.locator("img").count() == 0
    assert "owned" not in tab.page.title()
    assert tab.complaints == []


@pytest.mark.parametrize("events", [0, 3, 6])
def test_unfinished_runs_render_too(browser: Any, copy: Path, tmp_path: Path, events: int) -> None:
    tab = Tab(browser, write_report(cut(copy, events), tmp_path / "page.html"), PHONE, "dark")
    assert tab.complaints == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_comparison_renders_and_sorts(
    browser: Any, finished: Path, copy: Path, tmp_path: Path, size: dict[str, int]
) -> None:
    tab = Tab(browser, write_comparison([finished, cut(copy, 7)], tmp_path / "both.html"), size, "light")
    tab.page.locator("#runs-table thead button", has_text="Run").click()
    assert tab.page.locator("#runs-table tbody th").all_inner_texts() == ["copy", "finished"]
    assert tab.complaints == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") == size["width"]
