"""Whole runs on a tiny network: the result, the journal, repeatability, and what happens when things go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hirelc
from hirelc import candidates, pipeline
from hirelc.batches import Sealed, TensorBatches
from hirelc.candidates import Bench
from hirelc.checkpoints import load_candidate
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.ending import MODEL_FILE
from hirelc.errors import DataError, NetworkError, RunError
from hirelc.measure.evaluate import accuracy
from hirelc.measure.finetune import Diverged, Trained, Trainer
from hirelc.policy import Goal, Measurement, Policy
from hirelc.progress import Silent
from hirelc.results import Result
from hirelc.search.archive import FEE
from hirelc.search.likely import Scale
from hirelc.store import read_journal
from hirelc.task import CLASSIFICATION
from measure.small import Tiny, data, samples, tiny

CONFIG = Config(
    fisher_samples=32,
    calibration_samples=32,
    search=SearchConfig(cycles=2, trials=4, low_level_steps=64, high_level_steps=64, surrogate_min_samples=2),
    train=TrainConfig(images=4000, batch_size=32, precision="fp32", evaluations=2),
)
GOAL = Goal(ratio=3.0)


def compress(out: Path, goal: Goal = GOAL, config: Config = CONFIG, **changes: Any) -> Result:
    splits = {"train": data(), "val": data(96, 1), "test": data(96, 2), **changes}
    return pipeline.compress(tiny(), goal=goal, out=out, config=config, reporter=Silent(), **splits)


@pytest.fixture(scope="module", autouse=True)
def shortly() -> Iterator[None]:
    """Short trainings of a few steps are made, whatever they tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hirelc.searching.TELLING", 0)
        yield


@pytest.fixture(scope="module")
def finished(shortly: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Sealed]:
    sealed = Sealed(data(96, 2))
    return compress(tmp_path_factory.mktemp("run") / "a", test=sealed), sealed


def events(result: Result, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_journal(result.folder) if event["event"] == kind]


# -- a run that goes well ------------------------------------------------------------------------------------


def test_the_result_is_that_of_the_file(finished: tuple[Result, Sealed]) -> None:
    result, _ = finished
    row = result.compressed
    assert row.size_bytes == result.path.stat().st_size
    assert row.ratio == result.original.size_bytes / row.size_bytes >= 3.0
    assert result.shortfall is None
    network = hirelc.load(result.path, Tiny)
    assert accuracy(network, data(96, 1), CLASSIFICATION) == row.validation
    assert accuracy(network, data(96, 2), CLASSIFICATION) == row.test
    assert row.parameters <= sum(p.numel() for p in network.parameters())
    assert row.macs <= result.original.macs
    assert row.validation > 60  # four classes


def test_original_and_control_stand_beside_it(finished: tuple[Result, Sealed]) -> None:
    result, _ = finished
    assert [row.name for row in result.rows] == ["original", "control", "compressed"]
    assert result.original.validation == accuracy(tiny(), data(96, 1), CLASSIFICATION)
    assert result.original.test == accuracy(tiny(), data(96, 2), CLASSIFICATION)
    assert result.control is not None
    assert result.control.size_bytes == result.original.size_bytes
    better = max(result.original.test, result.control.test)
    assert result.loss_points == pytest.approx(better - result.compressed.test)


def test_the_test_split_is_read_once_per_number(finished: tuple[Result, Sealed]) -> None:
    result, sealed = finished
    assert sealed.readings == 3
    order = [event["event"] for event in read_journal(result.folder)]
    assert order.count("test") == 1
    assert order.index("test") > max(i for i, kind in enumerate(order) if kind in ("measurement", "final", "control"))


def test_the_budget_of_images_is_kept(finished: tuple[Result, Sealed]) -> None:
    result, _ = finished
    assert 0 < result.images_seen <= CONFIG.train.images
    assert all(m.split == "search-validation" for m in result.measurements)
    seen = {f: [m.images_seen for m in result.measurements if m.fidelity == f] for f in ("calibrated", "short", "full")}
    assert set(seen["calibrated"]) == {0} and 0 < max(seen["short"]) <= min(seen["full"])


def test_the_best_trial_of_a_cycle_climbs(finished: tuple[Result, Sealed]) -> None:
    """Those that are not known calibrated, the better ones and the best so far trained shortly, the best in full."""
    result, _ = finished
    first, *explored = [e for e in events(result, "measurement") if e["cycle"] == 0]
    assert first["origin"] == "warm start"
    for trials in (explored, [e for e in events(result, "measurement") if e["cycle"] == 1]):
        rungs = {f: [e for e in trials if e["measurement"]["fidelity"] == f] for f in ("calibrated", "short", "full")}
        assert len(rungs["calibrated"]) >= 1 and [len(rungs[f]) for f in ("short", "full")] == [2, 1]
        (full,) = rungs["full"]
        assert full["policy"] == best_of(result, GOAL, rungs["short"], full)


def best_of(result: Result, goal: Goal, trials: list[dict[str, Any]], full: dict[str, Any]) -> Any:
    """The policy of least likely drop among trials, as it was judged before the full measurement."""
    every = events(result, "measurement")
    before = [m for m, e in zip(result.measurements, every, strict=True) if e["sequence"] < full["sequence"]]
    scale, limit = Scale.of(before), goal.byte_limit(result.original.size_bytes) or 0
    measured = [(Measurement(**e["measurement"]), e["policy"]) for e in trials]
    rated = [(scale.likely(m) + FEE * max(0.0, m.size_bytes / limit - 1), policy) for m, policy in measured]
    return min(rated, key=lambda pair: pair[0])[1]


def test_what_is_far_behind_without_training_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hirelc.searching.BEHIND", -100.0)
    config = replace(CONFIG, train=replace(CONFIG.train, images=16000, control=False))
    result = compress(tmp_path / "a", config=config)
    measured = [(e["origin"], e["measurement"]["fidelity"]) for e in events(result, "measurement")]
    trained = [one for one in measured if one[1] != "calibrated"]
    assert trained == [("warm start", "full"), ("incumbent", "full"), ("incumbent", "full")]
    seen = [m.images_seen for m in result.measurements if m.fidelity == "full"]
    assert seen[2] > seen[1] > seen[0]  # by what the short trials would have had


def test_where_short_trainings_say_nothing_untrained_policies_have_to_be_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hirelc.searching.TELLING", 1000)
    measure, ahead = Bench.measure, {"is": False}

    def judged(self: Bench, policy: Policy, *args: Any, **settings: Any) -> Any:
        found, candidate = measure(self, policy, *args, **settings)
        if settings["fidelity"] == "calibrated":
            found = replace(found, excess_loss=0.0 if ahead["is"] else 9.0, drop_points=0.0 if ahead["is"] else 4.0)
        return found, candidate

    monkeypatch.setattr(Bench, "measure", judged)
    for ahead["is"], trained in ((False, {"incumbent"}), (True, {"vote", "member", "swap", "variation"})):
        result = compress(tmp_path / str(trained), Goal(ratio=6.0))
        full = [e for e in events(result, "measurement") if e["measurement"]["fidelity"] == "full"]
        assert {e["measurement"]["fidelity"] for e in events(result, "measurement")} == {"full", "calibrated"}
        assert [event["cycle"] for event in full] == [0, 0, 1]
        assert full[0]["origin"] == "warm start" and {event["origin"] for event in full[1:]} <= trained


def test_the_picked_policy_competes_with_its_swaps(tmp_path: Path) -> None:
    """On its weights, without training of their own; what is least dropped of all is trained on."""
    result = compress(tmp_path / "a", Goal(ratio=6.0))
    last = [event for event in events(result, "measurement") if event["cycle"] == 2]
    assert {event["origin"] for event in last} == {"swap"} and len(last) > 1
    assert len({Policy.from_json(event["policy"]) for event in last}) == len(last)
    assert {event["measurement"]["fidelity"] for event in last} == {"calibrated"}
    assert {event["measurement"]["images_seen"] for event in last} == {0}
    assert max(e["expected_bytes"] for e in last) <= result.original.size_bytes / 6


def test_steps_of_trained_weights_are_known_as_such_when_a_policy_is_tried_on_them(tmp_path: Path) -> None:
    result = compress(tmp_path / "a", Goal(ratio=6.0))
    for index, measurement in enumerate(result.measurements):
        candidate = load_candidate(result.folder, index)
        kernels = {name for name, _ in candidate.policy.choices}
        tried = measurement.fidelity == "calibrated"
        assert (candidate.trained is None) == tried
        assert candidate.trained_steps <= kernels and (tried or candidate.trained_steps == kernels)
        if index == len(result.measurements) - 1:
            assert tried and len(candidate.trained_steps) >= len(kernels) - 2  # a swap changes two


def test_the_journal_tells_the_whole_story(finished: tuple[Result, Sealed]) -> None:
    result, _ = finished
    every = read_journal(result.folder)
    assert [event["sequence"] for event in every] == list(range(len(every)))
    kinds = {event["event"] for event in every}
    assert {
        "start",
        "network",
        "baseline",
        "sensitivity",
        "proxy",
        "measurement",
        "pick",
        "final",
        "control",
        "result",
    } <= kinds
    measured = events(result, "measurement")
    assert len(measured) == len(result.measurements) >= 2
    assert {event["cycle"] for event in measured} == {0, 1, 2}  # the last is that of the swaps
    for event in measured:
        assert event["measurement"]["size_bytes"] > 0
        assert {"predicted_drop", "measured_drop"} <= set(event["learned"])  # side by side
        assert Policy.from_json(event["policy"])
    votes = {event["cycle"]: event["decisions"] for event in measured if event["origin"] == "vote"}
    searched = list(votes.values())
    assert [decisions["exploring"] for decisions in searched] == [True, False]
    for decisions in searched:
        high = decisions["high_level"]
        assert len(high["budgets"]) == len(high["vote"]["levels"]) == 2
        assert len(high["members"]) == len(high["vote_weights"]) == 3
        assert all({"reward", "random_reward"} <= set(agent) for agent in high["agents"])
    (network,) = events(result, "network")
    assert [block["name"] for block in network["blocks"]] == ["layers.0", "layers.1"]
    assert network["original_bytes"] == result.original.size_bytes


def test_the_folder_holds_config_environment_and_candidates(finished: tuple[Result, Sealed]) -> None:
    import json

    result, _ = finished
    assert Config.from_json(json.loads((result.folder / "config.json").read_text())) == CONFIG
    assert json.loads((result.folder / "environment.json").read_text())["torch"] == torch.__version__
    saved = json.loads((result.folder / "result.json").read_text())
    assert saved["met"] is True
    assert Policy.from_json(saved["policy"]) == result.policy
    assert (result.folder / "candidates/final.hirelc").read_bytes() == result.path.read_bytes()
    files = sorted((result.folder / "candidates").glob("0*.hirelc"))
    assert [path.stat().st_size for path in files] == [m.size_bytes for m in result.measurements]
    assert all(hirelc.load(path, Tiny) for path in files)


def test_the_given_model_is_not_touched(tmp_path: Path) -> None:
    model = tiny().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = replace(CONFIG, search=replace(CONFIG.search, cycles=1), train=replace(CONFIG.train, control=False))
    result = pipeline.compress(model, data(), data(96, 1), GOAL, tmp_path / "b", config=config, reporter=Silent())
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert result.control is None
    assert result.compressed.test is None


# -- repeatability -------------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
import hirelc.searching
hirelc.searching.TELLING = 0
import test_pipeline
result = test_pipeline.compress(Path(sys.argv[2]))
print(result.policy.digest, result.path.read_bytes().hex())
"""


def test_the_same_command_gives_the_same_file(finished: tuple[Result, Sealed], tmp_path: Path) -> None:
    """In this process, whose random state is another by now, and in a fresh one with another hash seed."""
    result, _ = finished
    torch.manual_seed(1234)
    again = compress(tmp_path / "again")
    assert again.policy == result.policy
    assert again.path.read_bytes() == result.path.read_bytes()
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path / "spawned")]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    spawned = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert spawned.returncode == 0, spawned.stderr
    assert spawned.stdout.split() == [result.policy.digest, result.path.read_bytes().hex()]


# -- runs that do not go well --------------------------------------------------------------------------------


def test_a_candidate_that_diverges_is_rejected_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Trainer._loss

    def loss(self: Trainer, student: torch.nn.Module, *rest: Any) -> Tensor:
        found = honest(self, student, *rest)
        return found * float("nan") if poisoned else found

    finetune = Trainer.finetune

    def trained(self: Trainer, student: torch.nn.Module, images: int, *, name: str, **rest: Any) -> Trained:
        nonlocal poisoned
        poisoned = name == "candidate-0"
        return finetune(self, student, images, name=name, **rest)

    poisoned = False
    monkeypatch.setattr(Trainer, "_loss", loss)
    monkeypatch.setattr(Trainer, "finetune", trained)
    result = compress(tmp_path / "c")
    first, *others = result.measurements
    assert first.failure is not None
    assert "Diverged" in first.failure
    assert all(m.failure is None for m in others)
    assert others
    assert result.compressed.validation > 60
    assert not (result.folder / "candidates" / "000.hirelc").exists()
    assert events(result, "measurement")[0]["measurement"]["failure"] == first.failure


def test_every_candidate_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverged(*_args: Any, **_settings: Any) -> Trained:
        raise Diverged("the loss became nan")

    monkeypatch.setattr(Trainer, "finetune", diverged)
    with pytest.raises(RunError, match=r"every candidate failed.*the loss became nan"):
        compress(tmp_path / "d")


def test_an_interrupted_run_leaves_a_usable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = candidates.Bench.measure

    def interrupted(self: candidates.Bench, policy: Policy, target: int, images: int, name: str, *rest: Any, **k: Any) -> Any:
        if name == "candidate-1":
            raise KeyboardInterrupt
        return honest(self, policy, target, images, name, *rest, **k)

    monkeypatch.setattr(candidates.Bench, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compress(tmp_path / "e")
    journal = read_journal(tmp_path / "e")
    assert journal[-1]["event"] == "interrupted"
    assert [event["event"] for event in journal].count("measurement") == 1
    assert hirelc.load(tmp_path / "e" / "candidates" / "000.hirelc", Tiny)
    assert not (tmp_path / "e" / MODEL_FILE).exists()


@pytest.mark.parametrize("goal", [Goal(ratio=500.0), Goal(ratio=3.0, max_bytes=100)])
def test_a_goal_out_of_reach_still_delivers(tmp_path: Path, goal: Goal) -> None:
    result = compress(tmp_path / "f", goal)
    assert result.shortfall is not None
    assert f"{result.compressed.size_bytes:,} bytes" in result.shortfall
    assert result.path.stat().st_size == result.compressed.size_bytes
    assert result.to_json()["met"] is False
    smallest = min(m.size_bytes for m in result.measurements)
    assert result.compressed.size_bytes <= 1.15 * smallest  # the closest there is, trained on


# -- input that is not right: one clear error, and no folder left behind ---------------------------------------


def labelled(highest: int) -> TensorBatches:
    x, y = samples(64, 0)
    y[5] = highest
    return TensorBatches(x, y, 32)


def not_a_number() -> TensorBatches:
    x, y = samples(64, 0)
    x[3, 2] = float("nan")
    return TensorBatches(x, y, 32)


def too_wide() -> TensorBatches:
    x, y = samples(64, 0)
    return TensorBatches(torch.cat([x, x], 1), y, 32)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: labelled(4), "labels run up to 4"),
        (lambda: labelled(-1), "negative"),
        (not_a_number, "NaN"),
        (too_wide, "fails|shape"),
        (list, "empty"),
        (lambda: "somewhere", "cannot read batches"),
    ],
)
def test_bad_data(tmp_path: Path, split: str, bad: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compress(tmp_path / "g", **{split: bad()})
    assert not (tmp_path / "g").exists()


def test_a_folder_that_holds_a_run(finished: tuple[Result, Sealed]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished[0].folder.rglob("*")}
    with pytest.raises(RunError, match="already holds a run"):
        compress(finished[0].folder)
    assert {path: path.stat().st_mtime_ns for path in finished[0].folder.rglob("*")} == before


def test_a_budget_of_less_than_a_batch(tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, images=300))
    with pytest.raises(RunError, match="--images"):
        compress(tmp_path / "h", config=config)
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize("model", [torch.nn.BatchNorm1d(6), "resnet"])
def test_nothing_to_compress(tmp_path: Path, model: Any) -> None:
    x, y = samples(64, 0)
    with pytest.raises(NetworkError):
        pipeline.compress(model, (x, y), (x, y), GOAL, tmp_path / "i", config=CONFIG, reporter=Silent())
    assert not (tmp_path / "i").exists()
