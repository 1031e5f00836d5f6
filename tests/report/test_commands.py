"""report, compare and status as typed, and the libraries that may be missing."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hirelc.cli import app
from hirelc.report import figures
from hirelc.report.content import content
from hirelc.report.reading import moment, read_run
from hirelc.report.status import status, status_of, status_words
from report.damage import cut, edit_journal


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


# -- report ---------------------------------------------------------------------------------------------------


def test_report_writes_a_page(copy: Path, tmp_path: Path) -> None:
    assert run("report", copy) == (0, f"{copy / 'report.html'}\n", "")
    code, out, _ = run("report", copy, "--out", tmp_path / "page.html")
    assert (code, out) == (0, f"{tmp_path / 'page.html'}\n")
    assert (tmp_path / "page.html").read_bytes() == (copy / "report.html").read_bytes()


def test_figures_are_pictures(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 72)  # drawing many pixels takes long and proves no more
    code, out, _ = run("report", finished, "--figures", tmp_path / "figures")
    assert code == 0
    files = [Path(line) for line in out.splitlines()]
    names = {file.stem for file in files}
    views = [name for chart in content(read_run(finished), datetime.now(UTC)).charts for name in chart.specs()]
    assert names == set(views)
    assert {"front-close-up", "map-bits-per-weight", "votes-granularity", "sensitivity", "time"} <= names
    for file in files:
        data = file.read_bytes()
        assert data.startswith(b"\x89PNG" if file.suffix == ".png" else b"<svg")
        assert len(data) > 2000
    assert "goal: " in (tmp_path / "figures" / "front-close-up.svg").read_text()


@pytest.mark.parametrize("command", ["report", "status"])
def test_a_folder_without_a_run_is_one_line(tmp_path: Path, command: str) -> None:
    code, _, err = run(command, tmp_path)
    assert code == 2
    assert err.count("\n") == 1
    assert "holds no run" in err


def test_errors_of_report_are_one_line(copy: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ((copy, "--out", tmp_path / "no" / "page.html"), "cannot be written"),
        ((copy, "--out", tmp_path / "p.html", "--figures", tmp_path), "give one of them"),
        ((cut(copy, 0), "--figures", tmp_path / "f"), "nothing has been measured yet"),
    ):
        code, _, err = run("report", *arguments)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(("module", "package"), [("vl_convert", "vl-convert-python"), ("jinja2", "jinja2")])
def test_a_missing_library_names_the_extra(finished: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    from hirelc.report.page import drawing_library

    drawing_library.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = run("report", finished, "--out", "nowhere.html")
    assert code == 2
    assert f"need {package}" in err
    assert "pip install 'hirelc[report]'" in err
    monkeypatch.undo()
    assert run("status", finished)[0] == 0  # a status needs none of them


def test_the_libraries_are_loaded_late() -> None:
    code = "import sys, hirelc.cli; sys.exit(any(name in sys.modules for name in ('vl_convert', 'jinja2', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- compare --------------------------------------------------------------------------------------------------


def test_compare_puts_runs_on_one_page(finished: Path, copy: Path, tmp_path: Path) -> None:
    cut(copy, 7)
    code, _, _ = run("compare", finished, copy, "--out", tmp_path / "both.html")
    assert code == 0
    page = (tmp_path / "both.html").read_text()
    chart = json.loads(page.split('id="data-front">')[1].split("</script>")[0])
    rows = [dict(zip(chart["fields"], row, strict=True)) for row in chart["rows"]]
    assert {row["run"] for row in rows} == {"finished", "copy"}
    assert [row["what"] for row in rows].count("final file") == 1
    assert "<td>yes</td>" in page
    assert "<td>not finished</td>" in page


def test_runs_of_one_name_are_told_apart(finished: Path, tmp_path: Path) -> None:
    import shutil

    for parent in ("a", "b"):
        shutil.copytree(finished, tmp_path / parent / "mine")
    assert run("compare", tmp_path / "a" / "mine", tmp_path / "b" / "mine", "--out", tmp_path / "both.html")[0] == 0
    page = (tmp_path / "both.html").read_text()
    assert "a/mine" in page
    assert "b/mine" in page


def test_different_networks_are_warned_of(finished: Path, copy: Path, tmp_path: Path) -> None:
    edit_journal(copy, lambda events: events[1].update(original_bytes=5))
    assert run("compare", finished, copy, "--out", tmp_path / "both.html")[0] == 0
    assert "compressed different networks" in (tmp_path / "both.html").read_text()


def test_compare_needs_two_runs(finished: Path) -> None:
    for arguments, words in (([finished], "at least two"), ([finished, finished], "named twice")):
        code, _, err = run("compare", *arguments)
        assert code == 2
        assert words in err


# -- status ---------------------------------------------------------------------------------------------------


def test_status_of_a_finished_run(finished: Path) -> None:
    code, out, _ = run("status", finished)
    assert code == 0
    assert "finished, the goal is met" in out
    assert "within the goal" in out
    assert "cycle 2 of 2, 3 candidates measured" in out
    assert "result: goal met" in out


def test_status_follows_a_run(copy: Path) -> None:
    """As another terminal would see it, event by event."""
    events = read_run(copy).events
    seen = []
    for count in range(len(events), -1, -1):
        cut_to = events[:count]
        (copy / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in cut_to))
        if "result" not in [event["event"] for event in cut_to]:
            (copy / "result.json").unlink(missing_ok=True)
        now = moment(cut_to[-1]) + timedelta(seconds=5) if cut_to else datetime.now(UTC)
        found = status_of(read_run(copy), now, alive=True)
        seen.append((found.state.value, found.cycles[0], found.doing))
        assert status_words(found)
    # start network baseline sensitivity proxy reference vote vote pick final control test result
    assert seen[::-1] == [
        ("running", 0, "nothing done yet"),
        ("running", 0, "now tracing the network"),
        ("running", 0, "now measuring the original"),
        ("running", 0, "now measuring the sensitivity"),
        ("running", 0, "now measuring the logit proxy"),
        ("running", 1, "now in cycle 1 of 2"),
        ("running", 1, "now in cycle 1 of 2"),
        ("running", 2, "now in cycle 2 of 2"),
        ("running", 2, "now in cycle 2 of 2"),
        ("running", 2, "now in the final fine-tune"),
        ("running", 2, "now training the control or reading the test split"),
        ("running", 2, "now reading the test split"),
        ("running", 2, "now writing the result"),
        ("finished", 2, "the goal is met"),
    ]


def test_time_runs_on_while_a_run_does(copy: Path) -> None:
    cut(copy, 6)
    last = moment(read_run(copy).events[-1])
    spent = [status_of(read_run(copy), last + timedelta(seconds=later)).spent_seconds for later in (0, 30, 3600)]
    assert spent[1] - spent[0] == pytest.approx(30)
    assert spent[2] == spent[0]  # silent for an hour: not counted


def test_a_line_that_is_being_written_does_no_harm(copy: Path) -> None:
    journal = copy / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-25])
    assert run("status", copy)[0] == 0
    assert run("report", copy)[0] == 0


def test_status_of_an_interrupted_and_a_silent_run(copy: Path) -> None:
    cut(copy, 6)
    last = moment(read_run(copy).events[-1])
    found = status_of(read_run(copy), last + timedelta(hours=5))
    assert "the run may have died" in status_words(found)
    assert "5 h 00 min ago" in status_words(found)
    assert status(copy, last + timedelta(hours=5)).state.value == "died"  # no process holds its lock
    edit_journal(copy, lambda events: events.append({**events[-1], "event": "interrupted"}))
    assert ": interrupted, while in cycle 1 of 2" in status_words(status(copy, last + timedelta(hours=5)))


def test_status_for_programs(finished: Path) -> None:
    code, out, _ = run("status", finished, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["state"], found["cycle"], found["measured"], found["failed"]) == ("finished", 2, 3, 0)
    assert found["best"]["within_goal"] is True
