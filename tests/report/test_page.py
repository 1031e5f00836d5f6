"""The page as a file: it stands alone, holds what it promises, and cannot be made to run what a run's names say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hirelc.report.content import content
from hirelc.report.page import run_page, write_report
from hirelc.report.reading import read_run
from hirelc.report.steps import steps
from report.damage import cut, edit_journal

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ATTACK = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>.weight'
MEASURED = ("voted policy", "reference policy", "warm start", "best so far, trained on")  # kinds of the front
VOID = {"meta", "img", "input", "br", "link", "hr"}


class Outline(HTMLParser):
    """Elements with their attributes and text; fails on a tag that closes what is not open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(page)
        self.close()
        assert self._open == [], f"left open: {[tag for tag, _ in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.elements.append((tag, dict(attrs), text))
        if tag not in VOID:
            self._open.append((tag, text))

    def handle_endtag(self, tag: str) -> None:
        last, _ = self._open.pop()
        assert last == tag, f"</{tag}> closes <{last}>"

    def handle_data(self, data: str) -> None:
        for _, text in self._open:
            text.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]

    def data(self) -> dict[str, Any]:
        found = {str(a["id"]): json.loads(text) for a, text in self.all("script") if a.get("type") == "application/json"}
        for chart in found.values():
            if "fields" in chart:
                chart["rows"] = [dict(zip(chart["fields"], row, strict=True)) for row in chart["rows"]]
        return found


def page_of(folder: Path) -> str:
    return run_page(content(read_run(folder), NOW))


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return page_of(finished)


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


# -- it stands alone ------------------------------------------------------------------------------------------


def test_it_loads_nothing_and_is_small(page: str, outline: Outline) -> None:
    assert len(page.encode()) < 3_000_000
    for _, attributes, _ in outline.elements:
        assert not {"src", "srcset", "action", "data", "poster"} & set(attributes)
    assert [tag for tag, _, _ in outline.elements if tag in ("link", "iframe", "img", "object", "base")] == []
    assert "@import" not in page
    assert "url(" not in "".join(text for _, text in outline.all("style"))


def test_only_its_own_scripts_may_run(outline: Outline) -> None:
    policy = next(str(a["content"]) for a, _ in outline.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    running = [text for attributes, text in outline.all("script") if attributes.get("type") != "application/json"]
    hashes = {f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}" for text in running}
    assert set(re.findall(r"'(sha256-[^']+)'", policy)) == hashes
    assert len(running) == 2
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1]


def test_the_same_run_gives_the_same_page(finished: Path, page: str) -> None:
    assert page_of(finished) == page


# -- it says what it should -----------------------------------------------------------------------------------


def test_the_verdict_stands_on_top(finished: Path, page: str) -> None:
    result = json.loads((finished / "result.json").read_text())
    original, _, compressed = result["rows"]
    head = page[: page.index("<main")]
    assert "Goal met" in head
    assert f"{compressed['ratio']:.2f}x" in head
    assert f">{result['loss_points']:.2f}<" in head
    assert f"{original['macs'] / compressed['macs']:.2f}x" in head
    assert "at least 3x smaller, at most 30 points lost" in head
    assert "hirelc compress --model" in head


def test_a_measured_latency_takes_the_place_of_macs(copy: Path) -> None:
    saved = json.loads((copy / "result.json").read_text())
    for row, latency in zip(saved["rows"], (6.0, 6.0, 1.5), strict=True):
        row["latency_ms"] = latency
    (copy / "result.json").write_text(json.dumps(saved))
    page = page_of(copy)
    assert '<span class="value">4.00x</span> <span class="what">faster</span>' in page
    assert "6.00 ms to 1.50 ms" in page


def test_a_goal_that_was_missed_says_why(copy: Path) -> None:
    saved = json.loads((copy / "result.json").read_text())
    saved |= {"met": False, "shortfall": "the file has 9 bytes where 8 were allowed"}
    (copy / "result.json").write_text(json.dumps(saved))
    page = page_of(copy)
    assert "Goal not met" in page
    assert "the file has 9 bytes where 8 were allowed" in page


def test_a_loss_on_the_test_split_is_not_hidden(copy: Path) -> None:
    def strict(events: list[dict[str, Any]]) -> None:
        events[0]["goal"]["max_drop"] = 0.5

    edit_journal(copy, strict)
    saved = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({**saved, "loss_points": 0.73}))
    assert "0.73 points are lost against the better of original and control, more than the 0.5" in page_of(copy)


def test_every_chart_has_its_numbers(finished: Path, outline: Outline) -> None:
    data = outline.data()
    measured = steps(read_run(finished))
    front = data["data-front"]["rows"]
    assert [row["bytes"] for row in front if row["kind"] in MEASURED] == [step.size_bytes for step in measured]
    assert [row["picked"] for row in front].count("yes") == 1
    assert {"original, fp32", "control, fp32", "compressed, fine-tuned"} <= {row["kind"] for row in front}
    assert {name.removeprefix("data-") for name in data} == {
        *("front", "map", "sensitivity", "budgets", "size-votes", "votes", "rewards", "surrogate", "training", "time", "themes")
    }
    for name, chart in data.items():
        if name != "themes":
            assert chart["rows"], name
            fields = set().union(*chart["rows"])
            assert set(chart["columns"].values()) <= fields, name
    assert list(data["data-map"]["columns"])[:2] == ["Row", "Kernel"]  # in the order of the code, not of the alphabet


def test_the_kernel_table_is_sortable_and_complete(finished: Path, page: str) -> None:
    table = page[page.index('id="kernel-table"') : page.index("</table>", page.index('id="kernel-table"'))]
    heads = re.findall(r'<th scope="col" aria-sort="(\w+)"[^>]*><button type="button">', table)
    assert len(heads) == 11
    assert heads.count("ascending") == 1
    for kernel in json.loads((finished / "result.json").read_text())["policy"]["choices"]:
        assert kernel.removesuffix(".weight") in table


def test_failed_and_untouched_are_listed(copy: Path) -> None:
    def fail(events: list[dict[str, Any]]) -> None:
        next(e for e in events if e["event"] == "measurement")["measurement"]["failure"] = "Diverged: the loss became nan"
        next(e for e in events if e["event"] == "network")["untouched"] = [
            {"name": "pos", "shape": [1, 5], "reason": "no kernel"}
        ]

    edit_journal(copy, fail)
    page = page_of(copy)
    assert '<td class="reason">Diverged: the loss became nan</td>' in page
    assert '<th scope="row">pos</th><td>1x5</td><td class="reason">no kernel</td>' in page


# -- everyone can use it --------------------------------------------------------------------------------------


def test_landmarks_headings_and_names(outline: Outline) -> None:
    tags = [tag for tag, _, _ in outline.elements]
    assert [tags.count(tag) for tag in ("header", "nav", "main", "footer", "h1")] == [1, 1, 1, 1, 1]
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert outline.all("html")[0][0]["lang"] == "en"
    assert tags.count("table") == tags.count("caption") > 0
    ids = [attributes["id"] for _, attributes, _ in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in outline.elements:
        for relation in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(relation) is None or attributes[relation] in ids
        link = attributes.get("href") or ""
        assert not link.startswith("#") or link[1:] in ids
        if attributes.get("role") == "region":
            assert attributes.get("tabindex") == "0"
            assert attributes.get("aria-label")


# -- names are only names -------------------------------------------------------------------------------------


def test_a_script_in_a_name_is_inert(copy: Path) -> None:
    journal = copy / "journal.jsonl"
    saved = re.sub(r', "crc32": "[0-9a-f]+"', "", journal.read_text())  # of lines that are changed here
    assert "head.weight" in saved and "crc32" not in saved
    journal.write_text(saved.replace("head.weight", json.dumps(ATTACK)[1:-1]).replace("layers.0", json.dumps("<b>0")[1:-1]))
    (copy / "model.hirelc").write_bytes(b"")  # its names no longer fit: the page takes the journal's
    saved_result = (copy / "result.json").read_text()
    (copy / "result.json").write_text(saved_result.replace("head.weight", json.dumps(ATTACK)[1:-1]))
    page = page_of(copy)
    outline = Outline(page)
    assert len([1 for attributes, _ in outline.all("script") if attributes.get("type") != "application/json"]) == 2
    assert outline.all("img") == []
    assert outline.all("b") == []
    assert "&lt;script&gt;" in page
    assert "<script>document" not in page
    assert any(row.get("block") == "<b>0" for row in outline.data()["data-budgets"]["rows"])


def test_a_folder_with_a_name_of_markup(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "<i>run"))
    page = page_of(folder)
    assert Outline(page).all("i") == []
    assert "<h1>&lt;i&gt;run</h1>" in page


# -- runs that did not finish ---------------------------------------------------------------------------------


@pytest.mark.parametrize("events", range(12))
def test_a_run_that_died_anywhere_has_a_page(copy: Path, events: int) -> None:
    kinds = [event["event"] for event in read_run(copy).events]
    assert len(kinds) == 13  # three measurements; a change here changes what this test has to cut
    page = page_of(cut(copy, events))
    Outline(page)
    assert "The run has not finished" in page
    assert "it may have died" in page or events == 0
    measured = kinds[:events].count("measurement")
    if measured:
        assert f"of {measured} measured" in page
    else:
        assert "Nothing has been measured yet, so there is no front" in page


def test_an_interrupted_run_says_so(copy: Path) -> None:
    cut(copy, 6)
    edit_journal(copy, lambda events: events.append({**events[-1], "event": "interrupted"}))
    assert '<span class="badge open">Interrupted</span>' in page_of(copy)


def test_a_file_that_cannot_be_read_is_said(copy: Path) -> None:
    (copy / "model.hirelc").write_bytes(b"nothing of the kind")
    page = page_of(copy)
    assert "model.hirelc cannot be read" in page
    assert str(copy) not in page  # it names files of the run, not where the run lay
    assert "data-map" not in Outline(page).data()


def test_a_run_without_agents_says_so(copy: Path) -> None:
    def random(events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["event"] == "measurement":
                event |= {"origin": "random", "decisions": {}}

    edit_journal(copy, random)
    settings = json.loads((copy / "config.json").read_text())
    settings["search"]["strategy"] = "random"
    (copy / "config.json").write_text(json.dumps(settings))
    assert page_of(copy).count("the strategy of this run was random, which has no agents") == 4


def test_the_page_is_written_whole(copy: Path) -> None:
    path = write_report(copy)
    assert path == copy / "report.html"
    assert path.read_text().endswith("</html>\n") or path.read_text().endswith("</html>")
    assert [file.name for file in copy.iterdir() if file.name.endswith(".tmp")] == []
