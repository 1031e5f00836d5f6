"""Each network of the zoo through a whole run of two cycles, and out as ONNX. A few by default, all with the slow tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hirelc
from export.small import exported, more
from hirelc.batches import as_batches, map_inputs
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.errors import NetworkError
from hirelc.export.runtime import run, session
from hirelc.export.tracing import run_network
from hirelc.labelled import Labelled
from hirelc.measure.evaluate import accuracy
from hirelc.models import answers, settled
from hirelc.pipeline import compress
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.store import read_journal
from hirelc.task import named_task
from zoo import BY_NAME, ENTRIES, Entry, build

CONFIG = Config(
    fisher_samples=4,
    calibration_samples=8,
    search=SearchConfig(cycles=2, low_level_steps=8, high_level_steps=8, surrogate_min_samples=2, strategy="uniform"),
    train=TrainConfig(images=140, batch_size=8, precision="fp32", evaluations=1, control=False),
)
BY_DEFAULT = {"vit-torchvision", "regnet-y", "hf-gpt2"}
OFTEN = [pytest.param(e, id=e.name, marks=[] if e.name in BY_DEFAULT else pytest.mark.slow) for e in ENTRIES]
NO_ONNX = {"branching": r"data-dependent.*torch\.where"}


def samples(entry: Entry, count: int, seed: int) -> Any:
    """Random inputs of the entry's kind."""
    generator = torch.Generator().manual_seed(seed)

    def alike(tensor: Tensor) -> Tensor:
        shape = (count, *tensor.shape[1:])
        if tensor.is_floating_point():
            return torch.randn(shape, generator=generator)
        return torch.randint(int(tensor.min()), int(tensor.max()) + 1, shape, generator=generator)

    return map_inputs(entry.inputs(), alike)


@pytest.mark.parametrize("entry", OFTEN)
def test_two_cycles_of_compression(entry: Entry, tmp_path: Path) -> None:
    """No labels: agreement with the original is the metric, whatever the network is for."""
    network, task = build(entry), named_task("distill")
    train, validation = samples(entry, 32, 1), samples(entry, 16, 2)
    result = compress(network, train, validation, Goal(ratio=4), tmp_path / "run", config=CONFIG, task=task, reporter=Silent())
    assert {e["cycle"] for e in read_journal(tmp_path / "run") if e["event"] == "measurement"} == {0, 1}
    assert result.compressed.size_bytes == result.path.stat().st_size < result.original.size_bytes / 2
    data = as_batches(validation, 8, labelled=False)
    task = settled(task, network, data)
    read_back = hirelc.load(result.path, entry.factory)
    assert accuracy(read_back, Labelled(data, answers(network, task)), task) == result.compressed.validation


@pytest.mark.parametrize("entry", OFTEN)
def test_the_exported_graph_agrees(entry: Entry) -> None:
    """Kernels pruned and quantized, activations in 8 bits: `exported` compares layers and first choices itself."""
    if entry.name in NO_ONNX:
        with pytest.raises(NetworkError, match=NO_ONNX[entry.name]):
            exported(entry.name)
        return
    model, table, parity, network = exported(entry.name)
    assert parity.agreement == 100 and len(parity.layers) >= 0.3 * len(table)
    inputs = more(BY_NAME[entry.name].inputs())  # another number of samples than it was exported with
    wanted, found = run_network(network, inputs), run(session(model.SerializeToString()), inputs)
    assert float((found - wanted).norm() / wanted.norm()) < 0.05
