"""Which trackers a run has, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hirelc.errors import RunError
from hirelc.progress import Observer, Reporter
from hirelc.tracking.mlflow import MLflow
from hirelc.tracking.tensorboard import FOLDER, MISSING, TensorBoard, installed

NAMES = "tensorboard, mlflow, mlflow:URI or none"


def trackers(names: Sequence[str], say: Reporter) -> list[Observer]:
    """TensorBoard where it is installed, and what the names say.

    :param names: "tensorboard" (not to go without), "mlflow", "mlflow:URI"; "none" alone for none at all
    :raises RunError: unknown, or not installed
    """
    for name in names:
        if name not in ("tensorboard", "mlflow", "none") and not (name.startswith("mlflow:") and name != "mlflow:"):
            raise RunError(f"unknown tracker {name!r}: use {NAMES}")
    if "none" in names:
        if len(names) > 1:
            raise RunError("the tracker 'none' stands alone: leave out the others, or it")
        return []
    if "tensorboard" in names and not installed():
        raise RunError(MISSING)
    found: list[Observer] = [TensorBoard(say)] if installed() else []
    places = {name.partition(":")[2] or None: None for name in names if name.startswith("mlflow")}
    return [*found, *(MLflow(say, uri) for uri in places)]


def trackers_of(folder: Path, say: Reporter) -> list[Observer]:
    """Those that a run began with, to go on with."""
    found: list[Observer] = [TensorBoard(say)] if (folder / FOLDER).is_dir() and installed() else []
    return [*found, *MLflow.of(folder, say)]
