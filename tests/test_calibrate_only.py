"""Runs without training: nothing is trained, the candidate is what is delivered, and bad input is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import hirelc
from hirelc import pipeline
from hirelc.artifact.container import pack
from hirelc.candidates import Bench
from hirelc.cli import app
from hirelc.compression.reconstruct import Reconstruction
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.errors import DataError, RunError
from hirelc.measure.evaluate import accuracy
from hirelc.measure.finetune import Trainer
from hirelc.network.trace import trace
from hirelc.policy import Choice, Goal, Granularity, NumberType, Policy
from hirelc.progress import Silent
from hirelc.results import Result
from hirelc.store import read_journal
from hirelc.task import CLASSIFICATION
from measure.small import Tiny, data, samples, tiny

CONFIG = Config(
    fisher_samples=32,
    calibration_samples=32,
    calibrate_only=True,
    reconstruction_samples=200,
    search=SearchConfig(cycles=2, trials=1, low_level_steps=64, high_level_steps=64, surrogate_min_samples=2),
    train=TrainConfig(images=1),  # a budget of training that nothing could be done with
)


class Telling(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def compress(out: Path, network: nn.Module | None = None, config: Config = CONFIG, **changes: Any) -> tuple[Result, list[str]]:
    splits = {"train": data(), "val": data(96, 1), "test": data(96, 2), **changes}
    said = Telling()
    return pipeline.compress(network or tiny(), goal=Goal(ratio=4), out=out, config=config, reporter=said, **splits), said.lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[str]]:
    with pytest.MonkeyPatch.context() as patch:

        def forbidden(*_args: object, **_settings: object) -> None:
            raise AssertionError("a network was trained")

        patch.setattr(Trainer, "finetune", forbidden)
        return compress(tmp_path_factory.mktemp("run") / "a")


def test_the_goal_is_met_without_training(finished: tuple[Result, list[str]]) -> None:
    result, _ = finished
    assert result.shortfall is None and result.compressed.ratio >= 4.0
    assert result.images_seen == 32  # the Fisher information alone
    network = hirelc.load(result.path, Tiny)
    assert accuracy(network, data(96, 2), CLASSIFICATION) == result.compressed.test
    assert result.loss_points < 5


def test_what_is_delivered_is_a_measured_candidate(finished: tuple[Result, list[str]]) -> None:
    result, _ = finished
    candidates = [file.read_bytes() for file in sorted((result.folder / "candidates").glob("*.hirelc"))]
    assert result.path.read_bytes() in candidates
    best = min(m.drop_points for m in result.measurements if m.size_bytes <= 0.25 * result.original.size_bytes)
    assert result.original.validation - result.compressed.validation == pytest.approx(best)


def test_there_is_no_control_and_that_is_said(finished: tuple[Result, list[str]]) -> None:
    result, lines = finished
    assert result.control is None
    assert any("no control" in line for line in lines)
    events = {event["event"]: event for event in read_journal(result.folder)}
    assert "control" not in events and events["final"]["trained"] is None


def test_candidates_do_not_build_on_each_other() -> None:
    network = tiny()
    spec = trace(network, samples(2, 0)[0])
    importance = {k.name: torch.ones(k.shape) for k in spec.kernels}
    trainer = Trainer(network, data(), data(96, 1), CLASSIFICATION, TrainConfig(), seed=0)
    bench = Bench(
        network, spec, trainer, importance, importance, 90.0, reconstruction=Reconstruction(network, [samples(200, 0)[0]])
    )
    policy = Policy.of({k.name: Choice(4, 0.75, NumberType.INT, Granularity.LEARNED) for k in spec.kernels})
    found = [bench.measure(policy, 100_000, 0, "candidate") for _ in range(2)]
    assert all(m.failure is None and m.images_seen == 0 for m, _ in found)
    assert found[0][1].data == found[1][1].data == pack(bench.revive(found[0][1]))
    assert all(torch.equal(a, b) for a, b in zip(bench.current.parameters(), tiny().parameters(), strict=True))


def test_kernels_that_could_not_be_reconstructed_are_said(tmp_path: Path) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(6, 12)
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12)) for _ in range(2))
            self.head = nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.table(x).mean(1)
            for layer in self.layers:
                x = x + layer(x)
            return self.head(x)

    torch.manual_seed(0)
    x = torch.randint(0, 6, (400, 5))
    y = torch.arange(400) % 4
    parts = {"train": (x[:256], y[:256]), "val": (x[256:], y[256:]), "test": None}
    result, lines = compress(tmp_path / "run", Words(), **parts)
    assert any("table.weight (a kernel of Embedding is rounded by itself)" in line for line in lines)
    final = next(event for event in read_journal(result.folder) if event["event"] == "final")
    assert set(final["rounded_alone"]) == {"table.weight"}


def test_activations_in_eight_bits_are_taken_into_account(tmp_path: Path) -> None:
    result, _ = compress(tmp_path / "run", config=replace(CONFIG, activations="int8"))
    assert hirelc.open_file(result.path).activations
    assert result.loss_points < 8


def test_too_few_samples_are_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs 64 samples to calibrate on, better 200, and the fine-tuning split has 48"):
        compress(tmp_path / "run", train=data(48))
    assert not (tmp_path / "run").exists()


def test_no_samples_to_reconstruct_from_are_refused() -> None:
    with pytest.raises(RunError, match="reconstruction_samples must be above 0"):
        Config(calibrate_only=True, reconstruction_samples=0)


def test_the_setting_goes_through_json() -> None:
    assert Config.from_json(CONFIG.to_json()) == CONFIG


NETS = "from measure.small import tiny\n\ndef make_net(): return tiny()\n"


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "calibrated_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    inputs = data(480)
    np.savez(tmp_path / "data.npz", x=inputs.x.numpy(), y=inputs.y.numpy())
    options = ["--model", "calibrated_nets:make_net", "--data", str(tmp_path / "data.npz"), "--ratio", "4"]
    options += ["--cycles", "1", "--agent-steps", "32", "--calibrate-only", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["compress", *options])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "model.hirelc").stat().st_size * 4 <= 1_000_000
    few = ["--train-limit", "20", "--out", str(tmp_path / "few")]
    refused = CliRunner().invoke(app, ["compress", *options[:-2], *few])
    assert refused.exit_code == 2
    assert "needs 64 samples to calibrate on" in " ".join(refused.output.split())
