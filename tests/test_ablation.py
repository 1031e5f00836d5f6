"""`hirelc ablate`: resuming, the table, the plots; with runs that are written instead of trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner, Result

import hirelc.ablation
from hirelc.ablation import ALL, Outcome, Plan, Variant, ablate, outcomes
from hirelc.batches import TensorBatches
from hirelc.cli import app
from hirelc.common_benchmark import benchmark_network
from hirelc.config import Config, SearchConfig, TrainConfig
from hirelc.data import Splits
from hirelc.errors import NetworkError, RunError
from hirelc.policy import Goal
from hirelc.progress import Silent
from hirelc.store import RunDirectory
from hirelc.task import CLASSIFICATION
from hirelc.words_ablation import ablation_markdown, ablation_words, lines

ORIGINAL = 100_000
LOST = {"hirelc": 0.4, "uniform": 0.9, "random": 1.5, "without-ensemble": 0.2}


def measurement(size_bytes: int, drop: float, **more: Any) -> dict[str, Any]:
    return {"size_bytes": size_bytes, "drop_points": drop, "failure": None, "fidelity": "full", **more}


class Written:
    """Stands in for `compress`: writes what a run leaves behind, and keeps the configurations that it was called with."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.tests: list[object] = []

    def __call__(self, model: nn.Module, train: Any, val: Any, goal: Goal, out: Path, **given: Any) -> None:
        config: Config = given["config"]
        self.configs.append(config)
        self.tests.append(given["test"])
        directory = RunDirectory.create(out)
        if config.search.strategy == "flat":
            raise RunError("every candidate failed; the first reason: the loss became NaN")
        if config.search.strategy == "greedy":
            raise KeyboardInterrupt
        without = config.search.without
        name = config.search.strategy if without is None else f"without-{without}"
        limit, drop = goal.byte_limit(ORIGINAL) or 0, LOST[name] + 0.1 * config.seed
        steps = [
            measurement(limit, drop + 1),
            measurement(2 * limit, -5.0),
            measurement(limit, drop + 0.5, failure="the loss became NaN"),
            measurement(limit, drop, fidelity="short", excess_loss=drop / 20),
            measurement(limit, drop + 0.2),
        ]
        for number, taken in enumerate(steps):
            directory.journal("measurement", origin="reference" if number == 0 else "vote", measurement=taken)
        rows = [
            {"name": "original", "size_bytes": ORIGINAL, "ratio": 1.0, "validation": 93.0, "test": None, "seconds": 0.0},
            {"name": "compressed", "size_bytes": limit, "ratio": 20.0, "validation": 93 - drop, "test": None, "seconds": 60.0},
        ]
        goal_fields = {"ratio": goal.ratio, "max_drop": None, "max_bytes": None}
        directory.write_json("result.json", {"goal": goal_fields, "images_seen": 500, "rows": rows})


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    stand_in = Written()
    monkeypatch.setattr(hirelc.ablation, "compress", stand_in)
    return stand_in


def planned(*names: str, seeds: int = 1, **training: Any) -> Plan:
    train = TrainConfig(images=1000, control=False, **{"final": False, **training})
    config = Config(search=SearchConfig(cycles=3), train=train)
    variants = tuple(Variant.called(name) for name in names)
    return Plan("net", "data", Goal(ratio=20), config, variants, tuple(range(seeds)))


def load(seed: int) -> Splits:
    batches = TensorBatches(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), 2)
    return Splits(batches, batches, None, "nothing", 2)


def compared(plan: Plan, out: Path) -> tuple[Outcome, ...]:
    return ablate(lambda seed: nn.Linear(3, 2), load, CLASSIFICATION, plan, out, Silent())


def test_every_run_differs_in_strategy_part_and_seed_alone(written: Written, tmp_path: Path) -> None:
    plan = planned("hirelc", "uniform", "without-ensemble", seeds=2)
    compared(plan, tmp_path)
    found = [(c.search.strategy, c.search.without, c.seed) for c in written.configs]
    parts = [("hirelc", None), ("uniform", None), ("hirelc", "ensemble")]
    assert found == [(*part, seed) for seed in (0, 1) for part in parts]
    same = {json.dumps(plan.terms()["config"])}
    for config in written.configs:
        plain = Config.from_json({**config.to_json(), "seed": 0})
        fields = {**plain.to_json(), "search": {**plain.to_json()["search"], "strategy": "hirelc", "without": None}}
        same.add(json.dumps(fields))
    assert len(same) == 1
    assert not any(written.tests), "without a final fine-tune the test split stays sealed"


def test_finished_runs_are_not_repeated_and_more_may_be_added(written: Written, tmp_path: Path) -> None:
    compared(planned("hirelc", "uniform"), tmp_path)
    assert len(written.configs) == 2
    found = compared(planned("hirelc", "uniform", "random", seeds=2), tmp_path)
    assert len(written.configs) == 2 + 4 and len(found) == 6
    compared(planned("hirelc", "uniform", "random", seeds=2), tmp_path)
    assert len(written.configs) == 6


def test_another_goal_or_budget_needs_another_folder(written: Written, tmp_path: Path) -> None:
    compared(planned("hirelc"), tmp_path)
    with pytest.raises(RunError, match="another config: choose another folder"):
        compared(planned("hirelc", final=True), tmp_path)


def test_an_interruption_loses_nothing(written: Written, tmp_path: Path) -> None:
    plan = planned("hirelc", "greedy", "uniform")
    for attempt in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            compared(plan, tmp_path)
        assert [outcome.variant for outcome in outcomes(plan, tmp_path)] == ["hirelc"]
        assert len(list((tmp_path / "runs" / "greedy").iterdir())) == attempt
    assert [c.search.strategy for c in written.configs] == ["hirelc", "greedy", "greedy"]
    assert [run["variant"] for run in json.loads((tmp_path / "ablation.json").read_text())["runs"]] == ["hirelc"]


def test_what_a_run_came_to_is_read_from_its_folder(written: Written, tmp_path: Path) -> None:
    (found,) = compared(planned("hirelc"), tmp_path)
    assert (found.size_bytes, found.ratio, found.within, found.found_by) == (5000, 20.0, True, "vote")
    assert (found.measurements, found.short, found.failed, found.images_seen, found.seconds) == (4, 1, 1, 500, 60.0)
    assert found.drop_points == pytest.approx(0.4) and found.excess_loss == pytest.approx(0.02)
    assert Outcome.from_json(json.loads(json.dumps(found.to_json()))) == found
    # too long a file and a failed candidate are no best
    assert found.curve == pytest.approx((1.4, 1.4, 1.4, 0.4, 0.4))


def test_the_table_compares_with_the_method_seed_by_seed(written: Written, tmp_path: Path) -> None:
    plan = planned("hirelc", "uniform", "without-ensemble", "flat", seeds=2)
    found = compared(plan, tmp_path)
    rows = {row.variant: row for row in lines(found)}
    assert [*rows] == ["without-ensemble", "hirelc", "uniform", "flat"]
    assert rows["uniform"].against == pytest.approx(0.5) and rows["uniform"].better == (0, 2)
    assert rows["without-ensemble"].better == (2, 2) and rows["hirelc"].against is None
    assert rows["hirelc"].lost == pytest.approx(0.45) and rows["hirelc"].spread == pytest.approx(0.1 / 2**0.5)
    text = ablation_words(plan, found)
    assert "flat failed: seed 0: every candidate failed" in text and "2 of 2" in text
    page = ablation_markdown(plan, found)
    assert "| without-ensemble | 2 | 5,000 | 20.0x | +0.25 | 0.07 | 0.0125 |" in page and "No final fine-tune" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith(("| hirelc | 0", "| variant | seed |"))}
    assert len(widths) == 1


def test_a_file_that_is_too_long_ranks_last() -> None:
    long = Outcome("uniform", 0, size_bytes=9000, ratio=11.0, drop_points=-1.0, within=False)
    short = Outcome("hirelc", 0, size_bytes=5000, ratio=20.0, drop_points=3.0, within=True)
    assert [row.variant for row in lines([long, short])] == ["hirelc", "uniform"]
    assert "9,000 (too long)" in ablation_words(planned("hirelc"), [long, short])


def test_all_variants_are_strategies_and_parts() -> None:
    assert len(ALL) == 17 and Variant.called("without-high-level") == Variant("without-high-level", "hirelc", "high-level")
    with pytest.raises(RunError, match="unknown variant 'luck'"):
        Variant.called("luck")
    with pytest.raises(RunError, match="nothing to compare"):
        planned("hirelc", seeds=0)


# -- the command ----------------------------------------------------------------------------------------------

NETWORKS = """
from torch import nn
class TinyNet(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "networks.py").write_text(NETWORKS)
    save_file(nn.Linear(3, 2).state_dict(), folder / "tinynet.safetensors")
    return folder


def says(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ablate", *map(str, arguments)])


def test_the_command_writes_table_numbers_and_plots(written: Written, bench: Path, tmp_path: Path) -> None:
    common = (
        "--network",
        "tinynet",
        "--bench",
        bench,
        "--data",
        "demo",
        "--ratio",
        20,
        "--seeds",
        1,
        "--out",
        tmp_path / "out",
    )
    done = says(*common, "--variants", "hirelc,uniform", "--quiet")
    assert done.exit_code == 0, done.output
    assert "uniform" in done.stdout and "+0.90" in done.stdout
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert names == {"lost.svg", "lost.png", "best-so-far.svg", "best-so-far.png"}
    assert "| uniform |" in (tmp_path / "out" / "ablation.md").read_text()
    stopped = says(*common, "--variants", "hirelc,greedy", "--quiet")
    assert stopped.exit_code == 130 and "1 runs are finished" in stopped.output
    told = says(*common, "--variants", "hirelc", "--json")
    assert [run["variant"] for run in json.loads(told.stdout)["runs"]] == ["hirelc"]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--model", "a:b", "--data", "demo"), "at equal bytes: give --ratio or --max-bytes"),
        (("--network", "tinynet", "--bench", "x"), "networks.py is missing"),
        (("--ratio", "9"), "give either --network with --bench"),
        (("--ratio", "9", "--network", "a"), "--network a needs --bench"),
        (("--ratio", "9", "--model", "a:b"), "--data is missing"),
        (("--ratio", "9", "--network", "a", "--bench", "x", "--variants", "luck"), "unknown variant 'luck'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...], cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no benchmark is found
    done = says(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2 and cause in done.output
    assert not (tmp_path / "out").exists()


def test_a_network_of_the_benchmark_needs_no_more_than_its_name(
    written: Written, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.parent)
    done = says("--network", "tinynet", "--data", "demo", "--seeds", 1, "--variants", "uniform", "--quiet")
    assert done.exit_code == 0, done.output
    plan = json.loads((tmp_path / "runs" / "ablate-tinynet-30x" / "plan.json").read_text())
    assert plan["goal"]["ratio"] == 30


def test_networks_of_a_benchmark_folder(bench: Path, tmp_path: Path) -> None:
    assert benchmark_network(bench, "tinynet").in_features == 3
    with pytest.raises(NetworkError, match="no network 'vit': choose one of tinynet"):
        benchmark_network(bench, "vit")
    with pytest.raises(NetworkError, match=r"networks\.py is missing"):
        benchmark_network(tmp_path, "tinynet")
    save_file({"weight": torch.zeros(2, 3)}, bench / "tinynet.safetensors")
    with pytest.raises(NetworkError, match="does not hold the weights of tinynet"):
        benchmark_network(bench, "tinynet")
