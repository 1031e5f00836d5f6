"""What a run keeps comes back to the bit, and what is damaged is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hirelc.artifact.container import pack
from hirelc.candidates import Bench
from hirelc.checkpoints import candidate_names, load_candidate, save_candidate
from hirelc.config import TrainConfig
from hirelc.errors import RunError
from hirelc.measure.finetune import Trainer
from hirelc.network.trace import trace
from hirelc.policy import Choice, Policy
from hirelc.store import RunDirectory
from hirelc.task import CLASSIFICATION
from hirelc.tensorfile import copy_into, pack_tensors, unpack_tensors
from measure.small import data, samples, tiny

TENSORS = {
    "a": torch.tensor([1.5, float("nan"), -0.0]),
    "b": torch.arange(6).reshape(2, 3),
    "c": torch.tensor(2.0**-1060, dtype=torch.float64),
    "d": torch.tensor([True, False]),
    "e": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "f": torch.empty(0, 4),
}
RECORD = {"step": 3, "best": 0.1 + 0.2, "names": ["x", None]}


def test_tensors_and_record_come_back_to_the_bit() -> None:
    data = pack_tensors(TENSORS, RECORD)
    assert data == pack_tensors(dict(reversed(TENSORS.items())), RECORD)
    tensors, record = unpack_tensors(data, "here")
    assert record == RECORD and list(record) == list(RECORD)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name].nan_to_num(7), tensor.nan_to_num(7))


def test_any_changed_byte_is_noticed() -> None:
    data = pack_tensors({"a": torch.arange(40.0), "b": torch.arange(3)}, RECORD)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x10
        with pytest.raises(RunError, match="here is damaged"):
            unpack_tensors(bytes(changed), "here")
    for length in (0, 7, 100, len(data) - 1):
        with pytest.raises(RunError, match="here is damaged"):
            unpack_tensors(data[:length], "here")


def test_values_go_into_tensors_that_exist() -> None:
    target = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    source = torch.randn(2, 3, 4, 4)
    copy_into({"a": target}, {"a": source})
    assert torch.equal(target, source) and target.is_contiguous(memory_format=torch.channels_last)
    for other in ({"b": source}, {"a": source[:1]}, {}):
        with pytest.raises(RunError, match=r"of another network: [ab] differs"):
            copy_into({"a": target}, other)


def test_a_candidate_comes_back_from_its_run_folder(tmp_path: Path) -> None:
    network = tiny()
    spec = trace(network, samples(2, 0)[0])
    config = TrainConfig(images=2000, batch_size=32, precision="fp32")
    trainer = Trainer(network, data(), data(96, 1), CLASSIFICATION, config, seed=0)
    bench = Bench(network, spec, trainer, {k.name: torch.rand(k.shape) for k in spec.kernels}, {}, baseline=90.0)
    bench.fisher = bench.importance
    bench.calibration = samples(64, 5)[0]
    policy = Policy.of({k.name: Choice(4, 0.75) for k in spec.kernels})
    _, candidate = bench.measure(policy, 10_000, 320, "kept")
    assert candidate is not None
    directory = RunDirectory.create(tmp_path)
    save_candidate(directory, 7, candidate)
    found = load_candidate(tmp_path, 7)
    assert (found.policy, found.sites, found.data, found.trained) == (
        candidate.policy,
        candidate.sites,
        candidate.data,
        candidate.trained,
    )
    assert found.sites
    assert pack(bench.revive(found)) == candidate.data
    for name in candidate_names(7):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(RunError, match=f"{name} is damaged"):
            load_candidate(tmp_path, 7)
        (tmp_path / name).unlink()
        with pytest.raises(RunError, match=f"{name} cannot be read"):
            load_candidate(tmp_path, 7)
        (tmp_path / name).write_bytes(whole)
