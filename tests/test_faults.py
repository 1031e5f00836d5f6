"""Faults injected for real: the candidate fails with its reason, the search goes on, a full disk is one clear error."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hirelc.batches import as_batches
from hirelc.candidates import Bench
from hirelc.config import TrainConfig
from hirelc.errors import RunError
from hirelc.failures import machine_failure
from hirelc.measure.finetune import Trainer
from hirelc.network.trace import trace
from hirelc.policy import Choice, Measurement, Policy
from hirelc.store import RunDirectory, atomic_write
from hirelc.task import CLASSIFICATION, Task
from measure.small import data, samples, tiny

CONFIG = TrainConfig(images=2000, batch_size=32, precision="fp32", rate_term=False)


class Data(Dataset[tuple[Tensor, Tensor]]):
    """Its workers die, or its memory runs out, while `fault` exists."""

    def __init__(self, fault: Path, kind: str) -> None:
        self.x, self.y = samples(128, 0)
        self.fault, self.kind = fault, kind

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.fault.exists():
            if self.kind == "worker":
                os._exit(3)
            torch.empty(2**52)  # four million gigabytes
        return self.x[index], self.y[index]


def measured(train: Any, task: Task = CLASSIFICATION) -> tuple[Bench, Policy]:
    network = tiny()
    spec = trace(network, samples(2, 0)[0])
    trainer = Trainer(network, train, data(96, 1), task, CONFIG, seed=0)
    importance = {k.name: torch.ones(k.shape) for k in spec.kernels}
    return Bench(network, spec, trainer, importance, importance, baseline=90.0), Policy.of(
        {k.name: Choice(4) for k in spec.kernels}
    )


def fails_then_goes_on(bench: Bench, policy: Policy, mend: Any) -> Measurement:
    before = {name: tensor.clone() for name, tensor in bench.current.state_dict().items()}
    failed, none = bench.measure(policy, 10_000, 128, "a")
    assert none is None and failed.failure is not None and failed.drop_points > 90
    assert all(torch.equal(tensor, before[name]) for name, tensor in bench.current.state_dict().items())
    mend()
    found, candidate = bench.measure(policy, 10_000, 128, "b")
    assert candidate is not None and found.failure is None
    return failed


@pytest.mark.parametrize("persistent", [False, True])
def test_a_data_worker_that_dies(tmp_path: Path, persistent: bool) -> None:
    fault = tmp_path / "fault"
    fault.touch()
    loader = DataLoader(Data(fault, "worker"), 32, shuffle=True, num_workers=1, persistent_workers=persistent)
    failed = fails_then_goes_on(*measured(as_batches(loader)), fault.unlink)
    assert "a worker of the data loader died (DataLoader worker" in str(failed.failure)


def test_an_allocation_that_fails(tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    fault.touch()
    failed = fails_then_goes_on(*measured(as_batches(Data(fault, "memory"), 32)), fault.unlink)
    assert str(failed.failure).startswith("out of memory (") and "can't allocate memory" in str(failed.failure)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e9])
def test_a_loss_that_is_no_number_or_explodes(factor: float) -> None:
    calls, worst = [], [factor]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        return CLASSIFICATION.loss(outputs, targets) * (worst[0] if len(calls) > 1 else 1.0)

    task = Task(loss, CLASSIFICATION.metric)
    failed = fails_then_goes_on(*measured(data(), task), lambda: worst.__setitem__(0, 1.0))
    assert str(failed.failure).startswith("Diverged: the loss became")


def test_a_metric_that_is_no_number() -> None:
    now = [float("nan")]
    task = Task(CLASSIFICATION.loss, lambda outputs, targets: (outputs.argmax(1) == targets).float() * now[0])
    failed = fails_then_goes_on(*measured(data(), task), lambda: now.__setitem__(0, 1.0))
    assert str(failed.failure).startswith("NoScore: the ")


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("sizes differ")

    bench, policy = measured(data(), Task(loss, CLASSIFICATION.metric))
    with pytest.raises(RuntimeError, match="sizes differ"):
        bench.measure(policy, 10_000, 64, "a")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory (MemoryError)"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory (CUDA out of memory. Tried)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "a worker of the data loader died"),
        (RuntimeError("CUDA error: device-side assert"), None),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_what_counts_as_a_failure_of_the_machine(error: Exception, words: str | None) -> None:
    found = machine_failure(error)
    assert found is None if words is None else str(found).startswith(words)


# -- a disk that is full ---------------------------------------------------------------------------------------


def test_a_disk_of_a_few_pages(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a tmpfs")
    try:
        run = RunDirectory.create(disk / "run")
        run.journal("start")
        message = (
            r"model.hirelc cannot be written \(No space left on device; 200,000 bytes wanted, [\d,]+ free\): make room, then"
        )
        with pytest.raises(RunError, match=message + rf" `hirelc resume {run.path}` goes on from here"):
            run.write_bytes("model.hirelc", bytes(200_000))
        run.write_bytes("small", bytes(1000))
        with pytest.raises(RunError, match=r"journal.jsonl cannot be written \(No space left"):
            run.journal("long", text="x" * 100_000)
        run.journal("short")
        assert [event["event"] for event in RunDirectory.open(run.path).events] == ["start", "short"]
        assert sorted(path.name for path in run.path.iterdir()) == ["journal.jsonl", "small"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.journal("start")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(RunError, match=r"File too large; 9,000 bytes wanted, [\d,]+ free\): make room"):
            run.write_bytes("model.hirelc", bytes(9000))
        with pytest.raises(RunError, match="cannot be written"):
            atomic_write(tmp_path / "other", bytes(9000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    run.journal("more")
    assert [event["event"] for event in run.events] == ["start", "more"]
