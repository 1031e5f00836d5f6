"""One finished run of a tiny network for all tests of the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hirelc import pipeline
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.policy import Goal
from hirelc.progress import Silent
from measure.small import data, tiny

CONFIG = Config(
    seed=3,
    fisher_samples=32,
    calibration_samples=32,
    search=SearchConfig(cycles=2, trials=1, low_level_steps=64, high_level_steps=64, surrogate_min_samples=2),
    train=TrainConfig(images=2000, batch_size=32, precision="fp32", evaluations=3),
)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    splits = {"train": data(), "val": data(96, 1), "test": data(96, 2)}
    pipeline.compress(tiny(), goal=Goal(ratio=3.0, max_drop=30.0), out=out, config=CONFIG, reporter=Silent(), **splits)
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))
