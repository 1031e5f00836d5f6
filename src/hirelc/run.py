"""What all stages of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hirelc.batches import Batches, Sealed
from hirelc.config import Config
from hirelc.network.spec import NetworkSpec
from hirelc.policy import Goal
from hirelc.progress import Reporter
from hirelc.store import RunDirectory
from hirelc.task import Task
from hirelc.timing import Pace


@dataclass(frozen=True)
class Run:
    """A run's network, data, goal, settings, folder and voice.

    :param model: a float32 copy of the given network, never changed
    :param test: opened at the very end
    :param pace: where the time is limited, once it has been planned
    """

    model: nn.Module
    spec: NetworkSpec
    train: Batches
    validation: Batches
    test: Sealed | None
    goal: Goal
    config: Config
    task: Task
    directory: RunDirectory
    say: Reporter
    pace: Pace | None = None

    @property
    def source(self) -> tuple[Path, int | str] | None:
        """The folder that a pick began with, and the candidate in it; None for a run that searches."""
        start = self.directory.event("start") or {}
        return (Path(start["picked_from"]), start["start_candidate"]) if "picked_from" in start else None
