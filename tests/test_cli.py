from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import hirelc
from hirelc.candidates import Bench
from hirelc.cli import app

NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1)
    def forward(self, x):
        return x + self.conv2(self.norm1(self.conv1(x)).relu())

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 8, 3, 2, 1), nn.Sequential(Block(8), Block(8))
        self.head = nn.Linear(8, classes)
    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).amax((2, 3)))

def make_net(): return Net()
def three_classes(): return Net(3)
def nothing(): return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))
def no_network(): return [1, 2]
"""
SMALL = ("--images", "1600", "--cycles", "1", "--agent-steps", "16", "--batch-size", "32", "--ratio", "4")
MODEL = ("--model", "cli_nets:make_net")


def images(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """8x8 images whose bright quarter tells their class."""
    random = np.random.default_rng(0)
    y = np.arange(count) % 4
    x = random.integers(0, 60, (count, 8, 8), dtype=np.uint8)
    for image, label in zip(x, y, strict=True):
        image[label // 2 * 4 :, label % 2 * 4 :][:4, :4] += 150
    return x, y


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder: a module, data, weights."""
    path = tmp_path_factory.mktemp("user")
    (path / "cli_nets.py").write_text(NETS)
    x, y = images()
    np.savez(path / "data.npz", x=x, y=y)
    return path


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)


def hirelc_says(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def compressed(folder: Path) -> Result:
    """One small run, in runs/one, of a network with weights of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        import cli_nets  # type: ignore[import-not-found]

        torch.manual_seed(3)
        save_file(cli_nets.make_net().state_dict(), "net.safetensors")
        return hirelc_says(
            "compress", *MODEL, "--weights", "net.safetensors", "--data", "data.npz", "--out", "runs/one", *SMALL
        )


def test_compress_ends_with_a_table_and_the_next_command(compressed: Result) -> None:
    assert compressed.exit_code == 0, compressed.stderr
    lines = compressed.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["original", "control", "compressed"]
    size = Path("runs/one/model.hirelc").stat().st_size
    assert f"{size:,}" in lines[4]
    for words in ("points on the test split", "at least 4x smaller: met", "file   runs/one/model.hirelc"):
        assert words in compressed.stdout
    assert (
        "hirelc evaluate runs/one/model.hirelc --model cli_nets:make_net --data data.npz --weights net.safetensors"
        in compressed.stdout
    )
    assert "cycle 1" in compressed.stderr and "400" not in compressed.stdout


def test_evaluate_measures_what_was_reported(compressed: Result) -> None:
    arguments = ("evaluate", "runs/one/model.hirelc", *MODEL, "--data", "data.npz", "--weights", "net.safetensors")
    rows = {row["name"]: row for row in json.loads(Path("runs/one/result.json").read_text())["rows"]}
    for split, key in (("test", "test"), ("validation", "validation")):
        done = hirelc_says(*arguments, "--json", "--split", split)
        assert done.exit_code == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["accuracy"] == rows["compressed"][key] and found["original"] == rows["original"][key]
        assert found["size_bytes"] == rows["compressed"]["size_bytes"] and found["split"] == split
        assert found["original_bytes"] == rows["original"]["size_bytes"] and found["samples"] == 40
    done = hirelc_says(*arguments)
    assert done.exit_code == 0 and "40 samples of the test split" in done.stdout


def test_the_file_loads_as_an_ordinary_module(compressed: Result) -> None:
    import cli_nets

    network = hirelc.load("runs/one/model.hirelc", cli_nets.make_net)
    assert isinstance(network, torch.nn.Module) and not network.training
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
    assert set(load_file("net.safetensors")) >= {name for name, _ in network.named_parameters() if "conv" in name}


def test_inspect_shows_blocks_kernels_couplings_and_the_rest() -> None:
    done = hirelc_says("inspect", *MODEL)
    assert done.exit_code == 0, done.stderr
    for words in (
        "6 kernels; 2 blocks and a frame of 2",
        "guessed: shape (1, 28, 28)",
        "block blocks.1",
        "coupled: 16 channels, group 2",
        "rows: 8 of its own, scattered back",
        "group 1: 16 channels, made by blocks.0.conv1.weight[0]; with them go blocks.0.norm1, blocks.0.conv2.weight[1]",
        "will not be touched",
    ):
        assert words in done.stdout


def test_inspect_takes_shapes_data_and_blocks_and_speaks_json() -> None:
    for example in (("--input-shape", "1,8,8"), ("--data", "data.npz")):
        done = hirelc_says("inspect", *MODEL, *example, "--blocks", "blocks", "--json")
        assert done.exit_code == 0, done.stderr
        found = json.loads(done.stdout)
        assert [block["name"] for block in found["blocks"]] == ["blocks"]
        assert found["macs"] == 16 * 8 * 9 + 4 * 16 * 8 * 16 * 9 + 32
        assert found["frame"][0]["reason"] and found["couplings"][0]["units"] == 16


def test_a_goal_out_of_reach_is_marked_and_delivered() -> None:
    done = hirelc_says(
        "compress",
        *MODEL,
        "--data",
        "data.npz",
        "--out",
        "runs/far",
        *SMALL,
        "--max-bytes",
        "100",
        "--strategy",
        "uniform",
        "-q",
    )
    assert done.exit_code == 0, done.stderr
    assert "at most 100 bytes: NOT MET, short of the goal: the file has" in done.stdout
    assert "short of the goal" in done.stderr and "cycle" not in done.stderr
    assert Path("runs/far/model.hirelc").is_file()


def spoilt(name: str) -> str:
    """A data set with one fault."""
    x, y = images(40)
    if name == "empty":
        x, y = x[:0], y[:0]
    elif name == "nan":
        x = np.where(np.arange(8) == 3, np.nan, x.astype(np.float32))[:, None]
    elif name == "shape":
        x = np.repeat(x[:, None], 3, axis=1)
    elif name == "negative":
        y = y - 1
    elif name == "missing array":
        np.savez("spoilt.npz", x=x)
        return "spoilt.npz"
    np.savez("spoilt.npz", x=x, y=y)
    return "spoilt.npz"


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "model does not import": (("--model", "cli_absent:make"), "cli_absent does not import"),
    "unknown tracker": (("--track", "wandb"), "unknown tracker 'wandb': use tensorboard, mlflow"),
    "model is no network": (("--model", "cli_nets:no_network"), "returns list, not a torch.nn.Module"),
    "no such attribute": (("--model", "cli_nets:make_nett"), "did you mean make_net"),
    "weights are a pickle": (("--weights", "net.pt"), "no such file|pickle"),
    "weights of another network": (
        ("--weights", "other.safetensors"),
        "do not fit the network: missing (18): .*unexpected (1): x",
    ),
    "data missing": (("--data", "absent.npz"), "absent.npz: no such file, folder or data set"),
    "data empty": (("--data", "empty"), "empty"),
    "pixels not numbers": (("--data", "nan"), "NaN or infinite pixels in 32 samples|NaN or infinite pixels"),
    "images of the wrong shape": (("--data", "shape"), "fails on samples of shape (3, 8, 8)"),
    "labels out of range": (("--model", "cli_nets:three_classes"), "labels run up to 3, but the network has 3 outputs"),
    "labels negative": (("--data", "negative"), "label -1 is negative"),
    "labels missing": (("--data", "missing array"), "array y is missing"),
    "no goal": (("--ratio", "0.5"), "the ratio must be above 1"),
    "nothing to compress": (("--model", "cli_nets:nothing"), "nothing to compress"),
    "unknown device": (("--device", "abacus"), "'abacus' cannot be used"),
    "no training images left": (("--images", "40"), "raise --images"),
    "strategy": (("--strategy", "luck"), "unknown search strategy 'luck'"),
    "augmentation": (("--augment", "blur"), "unknown augmentation 'blur'"),
    "blocks": (("--blocks", "nosuch"), "--blocks 'nosuch' matches no module"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(case: str, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, "other.safetensors")
    changes, message = BAD[case]
    options = {"--model": "cli_nets:make_net", "--data": "data.npz", "--out": str(tmp_path / "run")}
    options |= dict(zip(SMALL[::2], SMALL[1::2], strict=True))
    options |= dict(zip(changes[::2], changes[1::2], strict=True))
    if options["--data"] in ("empty", "nan", "shape", "negative", "missing array"):
        options["--data"] = spoilt(options["--data"])
    done = hirelc_says("compress", "-q", *(part for pair in options.items() for part in pair))
    assert done.exit_code == 2, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert re.search(message.replace("(", r"\(").replace(")", r"\)"), lines[0]), lines[0]
    assert done.stdout == ""


def test_a_folder_that_holds_a_run_is_not_overwritten(compressed: Result) -> None:
    before = Path("runs/one/model.hirelc").read_bytes()
    done = hirelc_says("compress", *MODEL, "--data", "data.npz", "--out", "runs/one", *SMALL, "-q")
    assert done.exit_code == 2 and "error: runs/one already holds a run: `hirelc resume runs/one` goes on" in done.stderr
    assert Path("runs/one/model.hirelc").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", *MODEL, "--input-shape", "3,8,8"), "does not take an input of shape (3, 8, 8)"),
        (("inspect", *MODEL, "--input-shape", "wide"), "--input-shape 'wide'"),
        (("inspect", *MODEL, "--blocks", "("), "is no regular expression"),
        (("evaluate", "absent.hirelc", *MODEL, "--data", "data.npz"), "absent.hirelc"),
        (("evaluate", "data.npz", *MODEL, "--data", "data.npz"), "data.npz"),
        (("evaluate", "data.npz", *MODEL, "--data", "data.npz", "--split", "train"), "unknown split 'train'"),
        (("demo", "--only", "alexnet"), "the demo has no network 'alexnet'"),
        (("demo", "--minutes", "0.1"), "give --minutes 2 or more"),
    ],
)
def test_other_commands_refuse_in_one_line_too(arguments: tuple[str, ...], message: str) -> None:
    done = hirelc_says(*arguments)
    assert done.exit_code == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_usage_errors_have_status_2() -> None:
    assert hirelc_says("compress").exit_code == 2
    assert hirelc_says("inspect", "--nosuch").exit_code == 2
    assert hirelc_says("compress", *MODEL, "--data", "data.npz", "--out", "runs/x", "--ratio", "much").exit_code == 2


def test_ctrl_c_says_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bench.measure
    calls = []

    def once(self: Bench, *arguments: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Bench, "measure", once)
    done = hirelc_says("compress", *MODEL, "--data", "data.npz", "--out", "runs/cut", *SMALL, "-q")
    assert done.exit_code == 130
    assert done.stderr.startswith("interrupted: runs/cut keeps its journal.jsonl, 1 measured candidate in runs/cut/candidates")
    kept = next(Path("runs/cut/candidates").glob("*.hirelc"))
    assert hirelc_says("evaluate", str(kept), *MODEL, "--data", "data.npz").exit_code == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hirelc", *arguments], capture_output=True, text=True, timeout=120)


def test_help_is_fast_and_shows_how() -> None:
    begun = time.perf_counter()
    done = run("--help")
    assert time.perf_counter() - begun < 5  # a bound for a crowded machine; the next test holds the reason for the speed
    assert done.returncode == 0 and "hirelc demo" in done.stdout
    assert "hirelc compress --model mypkg.nets:make_net" in run("compress", "--help").stdout


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, hirelc.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0 and done.stdout.strip() == f"hirelc {hirelc.__version__}"


def test_tracebacks_only_when_asked_for() -> None:
    quiet, loud = run("inspect", "--model", "cli_absent:make"), run("inspect", "--model", "cli_absent:make", "-v")
    assert (quiet.returncode, loud.returncode) == (2, 2)
    assert quiet.stderr.count("\n") == 1 and "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr and loud.stderr.splitlines()[-1] == quiet.stderr.strip()
