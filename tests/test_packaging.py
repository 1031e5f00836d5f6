"""What is built installs, and runs with nothing but what it declares."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import hirelc

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {"report", "hf", "onnx", "live", "tensorboard", "mlflow"}  # that a user may lack


def test_extras_are_those_that_messages_name() -> None:
    declared = set(PROJECT["optional-dependencies"])
    assert declared >= EXTRAS
    sources = [
        *(ROOT / "src").rglob("*.py"),
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*.*"),
    ]
    named = {(path.name, name) for path in sources for name in re.findall(r"hirelc\\*\[(\w+)\]", path.read_text())}
    assert {name for _, name in named} >= EXTRAS
    assert [(where, name) for where, name in sorted(named) if name not in declared] == []


def test_the_pins_cover_every_requirement() -> None:
    """`make setup` and `make docs` install with these constraints: what lacks one would change under us."""
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    wanted = {Requirement(text).name for group in groups for text in group}
    assert wanted - pinned == set()


def test_only_the_tested_python_is_declared() -> None:
    versions = [c.rpartition(":: ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert versions == [f"{sys.version_info.major}.{sys.version_info.minor}"] == ["3.11"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel, the wheel built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)])
    return out


@pytest.mark.slow
def test_sdist_and_wheel_are_sound(built: Path) -> None:
    wheel, sdist = next(built.glob("*.whl")), next(built.glob("*.tar.gz"))
    _run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)])
    held = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "hirelc").rglob("*.py")}
    assert held >= sources | {"hirelc/py.typed", "hirelc/demo_data/fashion_mnist_part.npz", "hirelc/demo_data/NOTICE"}
    assert any(name.startswith("hirelc/report/templates/") for name in held)
    assert {name.split("/")[0] for name in held} == {"hirelc", f"hirelc-{hirelc.__version__}.dist-info"}
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if name.count("/")}
    assert {"src", "pyproject.toml", "README.md", "LICENSE"} <= tops
    assert "tests" not in tops  # they would be there without their helpers


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a fresh environment with the wheel and only the distributions that the core requires, linked from here."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in _required(Requirement(text).name for text in PROJECT["dependencies"]):
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            source = Path(str(importlib.metadata.distribution(name).locate_file(top)))
            if top not in ("..", "__pycache__") and source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index"]
    _run([*pip, str(next(built.glob("*.whl")))])
    return folder / "bin"


@pytest.mark.slow
def test_the_wheel_runs_with_what_it_requires_and_nothing_else(bare: Path, tmp_path: Path) -> None:
    python = str(bare / "python")
    version = f"hirelc {hirelc.__version__}\n"
    assert _run([python, "-m", "hirelc", "--version"], tmp_path) == version
    assert _run([str(bare / "hirelc"), "--version"], tmp_path) == version
    assert "compress" in _run([str(bare / "hirelc"), "--help"], tmp_path)
    where = _run([python, "-c", "import hirelc; print(hirelc.__file__); hirelc.compress, hirelc.load, hirelc.Task"], tmp_path)
    assert Path(where.strip()).is_relative_to(bare.parent)  # not this checkout


@pytest.fixture(scope="module")
def runs(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, a and b, of the installed wheel and the data that it brings."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "nets.py").write_text(
        "from torch import nn\n"
        "def make_net(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))\n"
    )
    command = [str(bare / "hirelc"), "compress", "--model", "nets:make_net", "--data", "demo", "--ratio", "4", "--out", "a"]
    small = ["--images", "1200", "--cycles", "1", "--agent-steps", "8", "--train-limit", "300", "--batch-size", "32"]
    _run([*command, *small], folder)
    shutil.copytree(folder / "a", folder / "b")
    return folder


@pytest.mark.slow
def test_the_wheel_compresses(bare: Path, runs: Path) -> None:
    assert "4" in _run([str(bare / "hirelc"), "status", "a"], runs)
    shown = json.loads(_run([str(bare / "hirelc"), "show", "a/model.hirelc", "--json"], runs))
    assert shown["size_bytes"] == (runs / "a" / "model.hirelc").stat().st_size


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the commands get to before they miss a library."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "m.py").write_text("from torch import nn\ndef f(): return nn.Sequential(nn.Linear(4, 2))\n")
    (folder / "t.csv").write_text("text,label\na,x\nb,y\n")
    for name in ("one", "two"):
        (folder / "photos" / name).mkdir(parents=True)
        (folder / "photos" / name / "1.png").write_bytes(b"")
    (folder / "vit").mkdir()
    (folder / "vit" / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTForImageClassification"]}')
    (folder / "sets").mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("report", ["report", "a"]),
        ("report", ["report", "a", "--figures", "figures"]),
        ("report", ["compare", "a", "b"]),
        ("onnx", ["export", "x.hirelc", "--model", "m:f", "--onnx", "x.onnx"]),
        ("onnx", ["bench", "x.hirelc", "--model", "m:f"]),
        ("hf", ["inspect", "--model", "hf:vit"]),
        ("hf", ["compress", "--model", "m:f", "--data", "imagefolder:photos", "--ratio", "4", "--out", "new"]),
        (
            "hf",
            [
                "compress",
                "--model",
                "m:f",
                "--data",
                "csv:t.csv:text,label",
                "--tokenizer",
                "vit",
                "--ratio",
                "4",
                "--out",
                "new",
            ],
        ),
        ("hf", ["compress", "--model", "m:f", "--data", "hf-dataset:sets", "--ratio", "4", "--out", "new"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value[:1]),
)
def test_a_missing_extra_is_one_line_that_names_it(
    bare: Path, runs: Path, prepared: Path, extra: str, arguments: list[str]
) -> None:
    folder = runs if extra == "report" else prepared
    done = subprocess.run([str(bare / "hirelc"), *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert f"pip install 'hirelc[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def _required(names: Iterable[str]) -> set[str]:
    """Distributions and all that they require in turn."""
    found: set[str] = set()
    waiting = [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if name in found and not extra:
            continue
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # a requirement of another platform
        found.add(name)
        for text in requires:
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                waiting += [(wanted.name, ""), *((wanted.name, e) for e in wanted.extras)]
    return found


def _run(command: list[str], folder: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
