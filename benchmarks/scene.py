"""What the benchmarks of the search's parts share: a network prepared as a run prepares it, each stage timed."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hirelc
from hirelc.batches import as_batches, first_samples
from hirelc.candidates import Bench
from hirelc.common_benchmark import benchmark_network
from hirelc.data import load_data
from hirelc.landscape import Landscape
from hirelc.network.trace import float_copy, trace
from hirelc.preparing import importance_of, make_landscape, make_trainer, measure_baseline, measure_sensitivity
from hirelc.progress import Silent
from hirelc.run import Run
from hirelc.store import RunDirectory
from hirelc.task import CLASSIFICATION

BATCH = 128


@dataclass
class Clock:
    """Wall and process seconds by stage."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begun, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[stage] = self.wall.get(stage, 0.0) + time.perf_counter() - begun
            self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - cpu


@dataclass
class Scene:
    run: Run
    bench: Bench
    landscape: Landscape
    clock: Clock


def trained(bench: Path, network: str) -> nn.Module:
    """A network of the common benchmark with its weights."""
    return benchmark_network(bench, network)


def images(limit: int, seed: int = 0, batch: int = BATCH) -> Any:
    """Splits of Fashion-MNIST; `limit` images to fine-tune on."""
    return load_data("fashion-mnist", batch_size=batch, train_limit=limit, seed=seed)


def prepared(network: nn.Module, splits: Any, goal: hirelc.Goal, folder: Path, config: hirelc.Config) -> Scene:
    """All that stands before a search: sensitivity, proxy, sizes."""
    clock = Clock()
    model = float_copy(network).eval()
    train, validation = (
        as_batches(splits.train, config.train.batch_size),
        as_batches(splits.validation, config.train.batch_size),
    )
    with clock("trace"):
        spec = replace(trace(model, first_samples(train, 2)[0], config.blocks), align=config.align)
    directory = RunDirectory.create(folder)
    run = Run(model, spec, train, validation, None, goal, config, CLASSIFICATION, directory, Silent())
    with clock("baseline"):
        baseline = measure_baseline(run)
    with clock("sensitivity"):
        sensitivity = measure_sensitivity(run)
    importance = importance_of(run, sensitivity)
    measuring = Bench(model, spec, make_trainer(run), importance, sensitivity.fisher, baseline, sensitivity.samples)
    with clock("proxy"):
        landscape = make_landscape(run, sensitivity, importance)
    return Scene(run, measuring, landscape, clock)


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds, process seconds."""
    begun, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - begun, time.process_time() - cpu


class Layers(nn.Module):
    """Residual layers over 16 patches of a picture, any depth, one width."""

    def __init__(self, blocks: int, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.blocks = nn.Sequential(*(Layer(width) for _ in range(blocks)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(nn.functional.gelu(self.wide(self.norm(x))))


def small(splits: Any, images_seen: int = 120_000) -> nn.Module:
    """A transformer-like network of six blocks, trained on the spot: for what would take hours on the common networks."""
    torch.manual_seed(0)
    network, steps = Layers(6), images_seen // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    batches = (batch for epoch in itertools.count() for batch in splits.train.epoch(epoch, training=True))
    for pictures, labels in itertools.islice(batches, steps):
        loss = nn.functional.cross_entropy(network(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()
