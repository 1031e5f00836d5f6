"""A run folder as one value, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hirelc.errors import RunError
from hirelc.report.reading import read_run
from report.damage import edit_journal


def test_what_a_run_left(finished: Path) -> None:
    run = read_run(finished)
    assert run.name == "finished"
    assert run.goal == {"ratio": 3.0, "max_drop": 30.0, "max_bytes": None, "max_macs": None, "max_latency_ms": None}
    assert run.result is not None
    assert run.original_bytes == run.result["rows"][0]["size_bytes"]
    assert run.baseline == run.result["rows"][0]["validation"]
    assert list(run.blocks()) == ["layers.0", "layers.1"]
    assert run.problems == ()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere does not exist: name the folder"):
        read_run(tmp_path / "nowhere")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file: name the folder"):
        read_run(tmp_path / "file")


def test_a_folder_of_runs_names_one(finished: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run .*such as .*finished"):
        read_run(finished.parent)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_damaged_file_is_named_and_left_out(copy: Path, text: str) -> None:
    (copy / "environment.json").write_bytes(text.encode("latin-1"))
    run = read_run(copy)
    assert run.environment == {}
    assert len(run.problems) == 1
    assert "environment.json" in run.problems[0]


def test_a_damaged_journal_is_an_error(copy: Path) -> None:
    lines = (copy / "journal.jsonl").read_text().splitlines()
    lines[2] = lines[2][:40]
    (copy / "journal.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError):
        read_run(copy)


def test_lines_that_are_no_events(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"some": "thing"}\n')
    with pytest.raises(RunError, match="no journal of hirelc"):
        read_run(tmp_path)


def test_a_repeated_event_counts_once(copy: Path) -> None:
    """A resumed run may look at the network again: the last word counts."""
    edit_journal(copy, lambda events: events.append({**next(e for e in events if e["event"] == "baseline"), "twice": 2}))
    assert read_run(copy).event("baseline")["twice"] == 2
