from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from hirelc.artifact.container import pack
from hirelc.cli import app
from hirelc.compression.apply import apply
from hirelc.errors import FormatError, RunError
from hirelc.export.bench import bench, check_inputs, count_macs, float_model, model_inputs, read_onnx, shaped_like
from hirelc.network.trace import trace
from hirelc.policy import Choice, Policy


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Small().eval()
    spec = trace(network, torch.randn(2, 1, 8, 8))
    weights = dict(network.named_parameters())
    policy = Policy.of({k.name: Choice(3, 1.0) for k in spec.kernels})
    path = tmp_path_factory.mktemp("bench") / "model.hirelc"
    path.write_bytes(pack(apply(network, spec, policy, {k.name: weights[k.name].detach() ** 2 for k in spec.kernels}).eval()))
    return path


def test_both_models_are_timed_and_weighed(file: Path) -> None:
    found = bench(file, Small, example=torch.randn(3, 1, 8, 8), batches=(1, 4), threads=1, repeats=2)
    assert {(e.model, e.batch) for e in found.latencies} == {(m, b) for m in ("original", "compressed") for b in (1, 4)}
    assert all(e.spread[0] <= e.milliseconds <= e.spread[1] and e.milliseconds > 0 for e in found.latencies)
    assert found.size_bytes["compressed .hirelc"] == file.stat().st_size
    assert found.macs == (64 * 9 * (8 + 64) + 24,) * 2
    assert all(10 < mib < 2000 for mib in found.peak_mib.values())
    assert json.dumps(found.to_json()) and found.speedup(4) > 0


def test_macs_are_counted_per_sample() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, 2, groups=2), nn.Flatten(), nn.Linear(8 * 9, 5))
    assert count_macs(network, torch.randn(6, 4, 8, 8)) == 9 * 8 * 2 * 9 + 72 * 5


@pytest.mark.parametrize("wrong", [{"batches": ()}, {"batches": (0,)}, {"repeats": 0}, {"threads": -1}])
def test_bench_refuses(file: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(RunError, match="--batch"):
        bench(file, Small, example=torch.randn(2, 1, 8, 8), **wrong)  # type: ignore[arg-type]


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model at all")
    with pytest.raises(FormatError, match=r"net\.onnx: not an ONNX model"):
        read_onnx(tmp_path / "net.onnx")
    with pytest.raises(FormatError, match="cannot be read"):
        read_onnx(tmp_path / "missing.onnx")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--opset", "9"], "opset 9 is too old"),
        (["--weights", "int1"], "--weights"),
        (["--activations", "int1"], "--activations"),
        ([], "--data"),
    ],
)
def test_the_command_says_what_is_wrong(file: Path, tmp_path: Path, options: list[str], words: str) -> None:
    command = ["export", str(file), "--model", "test_bench:Small", "--onnx", str(tmp_path / "net.onnx"), *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_commands(file: Path, tmp_path: Path) -> None:
    model = ["--model", "test_bench:Small"]
    target = tmp_path / "net.onnx"
    done = CliRunner().invoke(
        app, ["export", str(file), *model, "--onnx", str(target), "--activations", "float", "--input-shape", "1,8,8"]
    )
    assert done.exit_code == 0, done.stderr
    assert "3 bits widened to 4" in done.stdout and f"{target.stat().st_size:,} bytes" in done.stdout
    options = ["--onnx", str(target), "--batch", "2", "--repeats", "1", "--input-shape", "1,8,8", "--json"]
    done = CliRunner().invoke(app, ["bench", str(file), *model, *options])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["speedups"][0]["batch"] == 2
    done = CliRunner().invoke(app, ["bench", str(file), *model, "--onnx", str(target), "--input-shape", "1,9,9"])
    assert done.exit_code == 2 and "--input-shape" in done.stderr


class Tokens(nn.Module):
    """Texts: identifiers, and a mask that a guessed example does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(16, 8), nn.Linear(8, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head((self.words(input_ids) * attention_mask.unsqueeze(-1)).sum(1))


def test_a_guessed_text_becomes_as_long_as_the_exported_one_and_gets_its_mask() -> None:
    exported = {"input_ids": torch.arange(22).view(2, 11) % 16, "attention_mask": torch.ones(2, 11, dtype=torch.long)}
    model = float_model(Tokens().eval(), exported).SerializeToString()
    guessed = {"input_ids": torch.arange(15).view(3, 5)}
    wanted = model_inputs(model)
    fitted = shaped_like(wanted, guessed)
    assert {name: tuple(tensor.shape) for name, tensor in fitted.items()} == {"input_ids": (3, 11), "attention_mask": (3, 11)}
    assert fitted["input_ids"][0].tolist() == [0, 1, 2, 3, 4] * 2 + [0] and bool((fitted["attention_mask"] == 1).all())
    check_inputs(wanted, fitted)
    with pytest.raises(RunError, match="takes attention_mask, too"):
        check_inputs(wanted, {"input_ids": fitted["input_ids"]})
