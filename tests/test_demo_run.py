from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hirelc.cli import app
from hirelc.demo import DEMO_NETWORKS, DemoBudget, demo_data, run_demo
from hirelc.errors import RunError
from hirelc.models import load_network
from hirelc.policy import Goal
from test_resuming import Killed, kill_at_event

TINY = DemoBudget(baseline_images=1280, images=2048, cycles=1, agent_steps=8)


@pytest.fixture
def images(tmp_path: Path) -> str:
    """240 images of 28x28 pixels in ten classes, told apart by how bright they are."""
    y = np.arange(240) % 10
    x = np.random.default_rng(0).integers(0, 20, (240, 28, 28)) + 23 * y[:, None, None]
    np.savez(tmp_path / "images.npz", x=x.astype(np.uint8), y=y)
    return str(tmp_path / "images.npz")


@pytest.mark.slow
@pytest.mark.parametrize("name", DEMO_NETWORKS)
def test_a_network_is_trained_kept_and_compressed(name: str, images: str, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    (run,) = run_demo(out, data=images, goal=Goal(ratio=6), budget=TINY, names=[name])
    assert run.result.path == out / name / "model.hirelc" and run.result.path.is_file()
    assert run.weights.parent == out / "originals"
    load_network(run.model, run.weights)
    assert json.loads((out / name / "config.json").read_text())["search"]["cycles"] == 1
    with pytest.raises(RunError, match=f"{name} already holds a run: choose another folder with --out, or remove that one"):
        run_demo(out, data=images, names=[name])


@pytest.mark.slow
def test_a_demo_that_died_goes_on_by_its_folder_alone(images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo" / "residual-net"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_event(patch, "final")
        run_demo(tmp_path / "demo", data=images, goal=Goal(ratio=6), budget=TINY, names=["residual-net"])
    assert not (folder / "result.json").exists()
    done = CliRunner().invoke(app, ["resume", str(folder), "-q"])
    assert done.exit_code == 0, done.stderr
    assert f"hirelc evaluate {folder}/model.hirelc --model hirelc.demo_networks:residual_net" in done.stdout


def test_the_budget_follows_the_minutes() -> None:
    whole, half = DemoBudget.for_minutes(12), DemoBudget.for_minutes(6)
    assert whole == DemoBudget()
    assert half.images * 2 == whole.images and half.cycles == whole.cycles
    with pytest.raises(RunError, match="--minutes 2 or more"):
        DemoBudget.for_minutes(1)


def test_bad_names_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no network 'alexnet': choose from residual-net, vision-transformer"):
        run_demo(tmp_path / "demo", names=["alexnet"])
    assert not (tmp_path / "demo").exists()
    assert demo_data() in ("demo", "fashion-mnist")
