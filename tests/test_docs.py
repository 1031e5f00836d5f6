"""What the documentation says to type: commands and options exist, code compiles, recipes apply and work."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import hirelc
from hirelc.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def blocks(page: Path, *languages: str) -> Iterator[tuple[str, str, str]]:
    """(language, title, text) of the fenced blocks of a page."""
    for language, title, text in FENCE.findall(page.read_text()):
        if language in languages:
            yield language, title, text


def options_of(command: str) -> set[str]:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    found = group.commands[command]  # a KeyError names a command that does not exist
    return {option for p in found.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    """Of every line of shell that begins with hirelc, and of every command in back-ticks."""
    shell = "".join(text for _, _, text in blocks(page, "sh")).replace("\\\n", " ")
    lines = re.findall(r"^hirelc +([a-z].*)$", shell, re.MULTILINE)
    lines += re.findall(r"`hirelc ([a-z][^`]*)`", page.read_text())
    for line in lines:
        command, *words = shlex.split(line, comments=True)
        flags = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert flags <= options_of(command), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles(page: Path) -> None:
    for _, _, text in blocks(page, "python"):
        ast.parse(text)


def test_the_reference_holds_every_public_name() -> None:
    named = set(re.findall(r"^::: hirelc\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE))
    errors = {name for name in hirelc.__all__ if name.endswith("Error")}  # a page of their own
    assert set(hirelc.__all__) - errors - {"__version__"} - named == set()


def test_help_loses_nothing_to_markup() -> None:
    """What stands in square brackets must be escaped, or rich takes it for a style."""
    from rich.markup import render

    group = get_command(app)
    assert isinstance(group, TyperGroup)
    texts = [text for c in group.commands.values() for text in (c.help, *(getattr(p, "help", "") for p in c.params))]
    assert any("hirelc\\[onnx]" in (text or "") for text in texts)
    for text in texts:
        text = (text or "").replace("\b", "")  # click's mark, no character
        assert render(text).plain == text.replace("\\[", "[")


def test_recipes_apply(tmp_path: Path) -> None:
    extended(tmp_path)


def extended(folder: Path) -> Path:
    """A copy of the package and the contract tests with all that docs/extending.md changes; its src/."""
    for name in ("src", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "attacks")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    page = ROOT / "docs" / "extending.md"
    for _, title, text in blocks(page, "python"):
        if title.startswith("src/"):
            (folder / title).write_text(text)
    patches = list(blocks(page, "diff"))
    assert len(patches) >= 6
    for _, title, text in patches:
        command = ["git", "apply", "--unidiff-zero", "-C1", "--recount", "-"]
        done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"docs/extending.md, {title}: the code around has changed: {done.stderr}"
    return folder / "src"


@pytest.mark.slow
def test_recipes_keep_the_contracts_and_compress(tmp_path: Path) -> None:
    source = extended(tmp_path)
    pytest_call = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    formats = _run([*pytest_call, "tests/contracts/test_number_formats.py", "-k", "normal"], tmp_path, source)
    assert int(re.search(r"(\d+) passed", formats)[1]) >= 7 * 4 * 9
    strategies = _run([*pytest_call, "tests/contracts/test_search_strategies.py", "-k", "Climbing"], tmp_path, source)
    assert int(re.search(r"(\d+) passed", strategies)[1]) >= 7

    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "class Block(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 16)\n"
        "    def forward(self, x): return x + self.b(self.a(x).relu())\n"
        "def make_net(): return nn.Sequential(nn.Linear(6, 16), Block(), Block(), Block(), nn.Linear(16, 2))\n"
    )
    rows = [json.dumps({"x": [float((i * k) % 7 + 5 * (i % 2)) for k in range(1, 7)], "y": i % 2}) for i in range(600)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    small = ["--images", "4000", "--cycles", "3", "--batch-size", "32", "--ratio", "3.5", "--no-control"]
    command = [sys.executable, "-m", "hirelc", "compress", "--model", "nets:make_net", "--data", "jsonl:rows.jsonl"]
    _run([*command, "--strategy", "climbing", "--out", "run", *small], tmp_path, source)
    origins = [event["origin"] for event in map(json.loads, (tmp_path / "run" / "journal.jsonl").open()) if "origin" in event]
    assert set(origins) == {"climbing"}
    files = sorted((tmp_path / "run" / "candidates").glob("*.hirelc"))
    shown = [json.loads(_run([sys.executable, "-m", "hirelc", "show", str(f), "--json"], tmp_path, source)) for f in files]
    assert any(kernel["number_type"] == "normal" for view in shown for kernel in view["kernels"])

    for _, title, text in blocks(ROOT / "docs" / "extending.md", "python"):
        if not title.startswith("src/"):
            (tmp_path / title).write_text(text)
    assert "try 300" in _run([sys.executable, "registered.py"], tmp_path, source)
    said = _run([*command[:-1], "python:mydata:load", "--strategy", "uniform", "--out", "own", *small], tmp_path, source)
    assert "hirelc evaluate" in said


@pytest.mark.slow
def test_the_walk_through_can_be_typed(tmp_path: Path) -> None:
    """Every block of docs/own-network.md, in order: files are written, commands typed, Python run."""
    page = ROOT / "docs" / "own-network.md"
    for language, title, text in blocks(page, "python", "sh"):
        if title:
            (tmp_path / title).write_text(text)
            if title == "prepare.py":
                _run([sys.executable, title], tmp_path)
        elif language == "sh":
            _run(["bash", "-euc", text], tmp_path)
        else:
            _run([sys.executable, "-c", text], tmp_path)
    for name in ("runs/mine/model.hirelc", "runs/mine/report.html", "net.onnx", "runs/python/model.hirelc"):
        assert (tmp_path / name).is_file(), name


def _run(command: list[str], folder: Path, source: Path | None = None) -> str:
    """What a process says, with one thread, this environment's commands first, and perhaps another source of hirelc."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if source is not None:
        environment["PYTHONPATH"] = f"{source}:{folder}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
