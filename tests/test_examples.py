"""The examples run: scripts in their quick form, the notebook as it is."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import hirelc

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = {"own_cnn": 12, "hf_vit": 10, "text_classifier": 8}  # and the ratio that each asks for


def test_every_script_is_run_here_and_shown() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SCRIPTS)
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    assert all(f'\n--8<-- "examples/{name}.py"\n' in page for name in SCRIPTS)  # shown as they are run


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_ends_with_a_file_that_meets_its_ratio(name: str, tmp_path: Path) -> None:
    work = [] if name == "own_cnn" else ["--work", "work"]
    said = _run([sys.executable, str(EXAMPLES / f"{name}.py"), "--quick", "--out", "run", *work], tmp_path)
    lines = {line.split()[0]: line.split() for line in said.splitlines() if "on the test split" in line}
    original, compressed = (int(lines[row][1].replace(",", "")) for row in ("original", "compressed"))
    assert compressed == (tmp_path / "run" / "model.hirelc").stat().st_size
    assert original / compressed >= SCRIPTS[name]
    assert hirelc.open_file(tmp_path / "run" / "model.hirelc").size_bytes == compressed
    if name == "text_classifier":  # it prints commands: they are typed as a user would
        command = next(line for line in said.splitlines() if line.lstrip().startswith("hirelc evaluate"))
        evaluated = _run([sys.executable, "-m", *shlex.split(command)], tmp_path)
        assert f"{float(lines['compressed'][4]):.2f}" in evaluated


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "compress.ipynb", as_version=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert "goal met" in said
    assert (tmp_path / "run" / "report.html").is_file()


def _run(command: list[str], folder: Path) -> str:
    """What a process says, in a folder of its own and with one thread."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
