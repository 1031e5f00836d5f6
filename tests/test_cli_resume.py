"""`hirelc resume` as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hirelc.candidates import Bench
from hirelc.cli import app
from hirelc.store import locked, read_journal

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 12)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12)) for _ in range(2))
        self.head = nn.Linear(12, 3)
    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)

def make_net():
    torch.manual_seed(0)
    return Net()
"""
COMPRESS = (
    "compress",
    "--model",
    "resume_nets:make_net",
    "--data",
    "data.npz",
    "--ratio",
    "3",
    "--images",
    "900",
    "--cycles",
    "1",
)
SMALL = ("--images", "900", "--cycles", "1", "--strategy", "random", "--batch-size", "32", "--seed", "3")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resume_nets.py").write_text(NETS)
    random = np.random.default_rng(0)
    y = np.arange(240) % 3
    np.savez(tmp_path / "data.npz", x=random.normal(size=(240, 6)).astype(np.float32) + y[:, None], y=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def says(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_an_interrupted_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert says(*COMPRESS, *SMALL, "--out", "runs/whole", "-q").exit_code == 0
    honest = Bench.measure

    def interrupted(*_args: object, **_more: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "measure", interrupted)
    cut = says(*COMPRESS, *SMALL, "--out", "runs/mine", "-q")
    assert cut.exit_code == 130
    assert "`hirelc resume runs/mine` goes on" in cut.stderr
    again = says(*COMPRESS, *SMALL, "--out", "runs/mine", "-q")
    assert again.exit_code == 2 and "`hirelc resume runs/mine` goes on with it" in again.stderr
    assert says("resume", "runs/mine", "-q").exit_code == 130  # Ctrl-C once more
    monkeypatch.setattr(Bench, "measure", honest)
    with locked("runs/mine"):
        busy = says("resume", "runs/mine")
        assert busy.exit_code == 2 and "error: runs/mine is being written by process" in busy.stderr
        assert "data:" not in busy.stderr  # which may take minutes to read
    done = says("resume", "runs/mine", "-q")
    assert done.exit_code == 0, done.stderr
    assert "hirelc evaluate runs/mine/model.hirelc --model resume_nets:make_net --data data.npz --seed 3" in done.stdout
    assert Path("runs/mine/model.hirelc").read_bytes() == Path("runs/whole/model.hirelc").read_bytes()
    before = read_journal("runs/mine")
    shown = says("resume", "runs/mine")
    assert shown.exit_code == 0 and "has ended: nothing is left to do" in shown.stderr
    assert shown.stdout == done.stdout and read_journal("runs/mine") == before


def test_what_cannot_be_resumed_is_one_line() -> None:
    for folder in ("nowhere", "."):
        found = says("resume", folder)
        assert found.exit_code == 2 and len(found.stderr.splitlines()) == 1 and "holds no run" in found.stderr
    told = says("resume", "--help").stdout
    assert "hirelc resume runs/mine" in told and "At most the measurement under way is repeated" in " ".join(told.split())
