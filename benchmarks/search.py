"""What a search costs: steps per second, shares of a run's time, seconds to a goal, growth with blocks, memory.

    python benchmarks/search.py --bench DIR --network resnet20         # everything
    python benchmarks/search.py --bench DIR --network vit --quick      # smaller numbers of everything
    ... --sections steps blocks

steps   environment steps of low-level training per second, while nothing is known (cold start) and with the surrogate in
        use, beside a yardstick of our own in the same run: a full forward pass of the calibration batch for each step, the
        block's kernels quantized anew. Medians over the blocks.
run     a whole compression at ten times, on protocol A's data: which part of the time goes where, when the first file
        was measured that is better than the published code's result, when the goal was met; peak memory.
blocks  a search of synthetic transformers of one width and 6 to 48 blocks, measurements for nothing: how time grows.

Process seconds stand beside wall seconds: other work may run on the machine. Rows go to search.jsonl.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hirelc
from hirelc.compression.fakequant import Quantizer
from hirelc.policy import Budget, Measurement, Strategy
from hirelc.search.agents import Ensemble
from hirelc.search.bounds import Bounds, random_choices
from hirelc.search.environments import BlockEnvironment, BlockScene
from hirelc.search.fitting import reference
from hirelc.search.hierarchy import HierarchicalSearch
from hirelc.search.rewards import LOW_LEVEL_WEIGHTS
from hirelc.search.surrogate import Surrogate, distortion_of, network_features
from protocol import NETWORKS, commit
from scene import Layers, Scene, images, prepared, timed, trained

HERE = Path(__file__).parent
SECTIONS = ("steps", "run", "blocks")
TRAIN_LIMIT, IMAGES = 6_000, 240_000  # protocol A
GOAL = hirelc.Goal(ratio=10, max_drop=0.5)
# The published code, measured on two cores (the common benchmark's README): steps per second cold and with its
# surrogate, points that its result lost against its own original, ratio of its true bytes, seconds of its run
PUBLISHED = {
    "resnet20": {"cold": 17, "surrogate": 135, "lost": 92.68 - 92.27, "ratio": 6.54, "seconds": 445},
    "vit": {"cold": 18, "surrogate": 79, "lost": 87.74 - 87.57, "ratio": 5.24, "seconds": 518},
}
FASTER = 20  # times the published code's steps
SAMPLES = 8  # that the surrogate has seen


# -- steps -------------------------------------------------------------------------------------------------


def steps_section(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        config = hirelc.Config()
        scene = prepared(trained(args.bench, args.network), images(TRAIN_LIMIT), GOAL, Path(folder) / "run", config)
    landscape, settings = scene.landscape, config.search
    bounds = Bounds.of(settings)
    start = reference(landscape, round(landscape.original_bytes / 10), bounds).choices
    model = learned_surrogate(landscape, bounds)
    rows: list[dict[str, Any]] = []
    share = 1 / len(landscape.blocks)
    for block in range(len(landscape.blocks))[: 2 if args.quick else None]:
        own = BlockScene(landscape, block, share, bounds)
        ensemble = Ensemble(own.info.name, lambda w, own=own: BlockEnvironment(own, w, settings.levels), LOW_LEVEL_WEIGHTS, 0)  # type: ignore[misc]
        row: dict[str, Any] = {"block": own.info.name, "kernels": own.kernel_count}
        for name, in_use in (("cold", False), ("surrogate", True)):
            own.grant(Budget(0.1, 0.5, 0, Strategy.AUTO, 1.0), model if in_use else Surrogate(0, 99), in_use, start[block])
            reports, wall, cpu = timed(partial(ensemble.train, settings.low_level_steps))
            count = len(reports) * settings.low_level_steps
            row |= {f"{name}_per_s": count / wall, f"{name}_per_cpu_s": count / cpu}
        passes, wall, cpu = timed(partial(plain_steps, scene, block, bounds, 4 if args.quick else 12))
        row |= {"plain_per_s": passes / wall, "plain_per_cpu_s": passes / cpu}
        rows.append(row)
    published = PUBLISHED[args.network]
    medians = {key: float(np.median([row[key] for row in rows])) for key in rows[0] if key.endswith("_s")}
    for name in ("cold", "surrogate"):
        yield {
            "section": "steps",
            "drop": name,
            **{key: round(medians[f"{name}_{key}"], 1) for key in ("per_s", "per_cpu_s")},
            **{f"plain_{key}": round(medians[f"plain_{key}"], 2) for key in ("per_s", "per_cpu_s")},
            "times_plain": round(medians[f"{name}_per_cpu_s"] / medians["plain_per_cpu_s"], 1),
            "published_per_s": published[name],
            "met": medians[f"{name}_per_cpu_s"] >= FASTER * published[name],
            "blocks": [{k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()} for row in rows],
        }


def learned_surrogate(landscape: Any, bounds: Bounds) -> Surrogate:
    """A surrogate that has seen a few made-up measurements and is in use, as good or bad as it may be."""
    surrogate, generator = Surrogate(0, 4), np.random.default_rng(0)
    for _ in range(SAMPLES):
        drawn = [landscape.canonical(b, random_choices(block, bounds, generator)) for b, block in enumerate(landscape.blocks)]
        found = network_features(landscape, drawn)
        surrogate.observe(found, float(10 ** (0.5 * found[0]) + generator.normal() / 10), None)
    surrogate.in_use = True
    return surrogate


def plain_steps(scene: Scene, block: int, bounds: Bounds, count: int) -> int:
    """The yardstick: a random action quantizes the block's kernels, and a full forward pass says what it is worth."""
    proxy, generator = scene.landscape.proxy, np.random.default_rng(block)
    names = scene.landscape.spec.blocks[block].kernels
    for _ in range(count):
        state = {}
        for name, choice in zip(names, random_choices(scene.landscape.blocks[block], bounds, generator), strict=True):
            weight, fisher = proxy.weights[name], proxy.fisher[name]
            with torch.no_grad():
                state[name] = Quantizer(weight, scene.landscape.spec.by_name[name].channel_dim, choice, fisher)(weight)
        proxy.network_distortion(state)
    return count


# -- a run -------------------------------------------------------------------------------------------------


class Ledger:
    """Own time of instrumented functions: what one calls in another is the other's."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._stack = ["other"]
        self._mark = time.perf_counter(), time.process_time()

    def turn(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        label = self._stack[-1]
        self.wall[label] = self.wall.get(label, 0.0) + wall - self._mark[0]
        self.cpu[label] = self.cpu.get(label, 0.0) + cpu - self._mark[1]
        self._mark = wall, cpu

    def labelled(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.turn()
            self._stack.append(label)
            try:
                return function(*args, **kwargs)
            finally:
                self.turn()
                self._stack.pop()

        return wrapped


def instrumented(ledger: Ledger) -> None:
    """Every module that knows one of these functions calls it by the clock from now on."""
    import hirelc.artifact.container as container
    import hirelc.artifact.load as load
    import hirelc.measure.evaluate as evaluate
    import hirelc.measure.sensitivity as sensitivity
    from hirelc.measure.finetune import Trainer
    from hirelc.measure.proxy import LogitProxy

    for owner, name, label in (
        (HierarchicalSearch, "__init__", "agents"),
        (HierarchicalSearch, "propose", "agents"),
        (HierarchicalSearch, "observe", "agents"),
        (LogitProxy, "__init__", "proxy"),
        (LogitProxy, "weight_error", "proxy"),
        (LogitProxy, "code_bits", "proxy"),
        (Trainer, "finetune", "fine-tuning"),
    ):
        setattr(owner, name, ledger.labelled(getattr(owner, name), label))
    for function, label in (
        (evaluate.accuracy, "evaluation"),
        (sensitivity.fisher_sensitivity, "sensitivity"),
        (container.pack, "file"),
        (container.read, "file"),
        (load.build, "file"),
    ):
        timed_one = ledger.labelled(function, label)
        for module in [m for n, m in sys.modules.items() if n.startswith("hirelc")]:
            for name, value in list(vars(module).items()):
                if value is function:
                    setattr(module, name, timed_one)


def run_section(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    at_start = peak_bytes()
    splits, network = images(TRAIN_LIMIT), trained(args.bench, args.network)
    budget = IMAGES // 12 if args.quick else IMAGES
    search = hirelc.SearchConfig(cycles=2) if args.quick else hirelc.SearchConfig()
    config = hirelc.Config(search=search, train=hirelc.TrainConfig(images=budget, control=False, final=not args.quick))
    ledger = Ledger()
    instrumented(ledger)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result, wall, cpu = timed(lambda: hirelc.compress(network, splits.train, splits.validation, GOAL, out, config=config))
        ledger.turn()
        events = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    yield {
        "section": "shares",
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "images": result.images_seen,
        "wall": {k: round(v / wall, 4) for k, v in ledger.wall.items()},
        "cpu": {k: round(v / cpu, 4) for k, v in ledger.cpu.items()},
        "final": not args.quick,
        "ratio": round(result.compressed.ratio, 2),
        "validation": result.compressed.validation,
        "met": ledger.cpu["agents"] <= 0.15 * cpu,
    }
    yield {"section": "start", "cpu_per_wall": round(cpu / wall, 3), **milestones(events, args.network)}
    arrays = sum(sys.getsizeof(t) + t.nbytes for t in data_tensors(splits))
    model = sum(t.nbytes for t in network.state_dict().values())
    peak = peak_bytes()
    yield {
        "section": "memory",
        "peak": peak,
        "before": at_start,
        "network_bytes": model,
        "data": arrays,
        "times": round((peak - at_start) / (model + arrays), 2),
        "met": peak - at_start <= 3 * (model + arrays),
    }


def milestones(events: list[dict[str, Any]], network: str) -> dict[str, Any]:
    """Wall seconds from the start to the first measured file better than the published result, and to the goal."""
    published, original = PUBLISHED[network], next(e["original_bytes"] for e in events if e["event"] == "network")
    begun = moment(events[0])
    found: dict[str, Any] = {"better_s": None, "goal_s": None, "published_s": published["seconds"]}
    for event in events:
        if event["event"] != "measurement" or event["measurement"]["failure"] is not None:
            continue
        m = event["measurement"]
        ratio, after = original / m["size_bytes"], round(moment(event) - begun, 1)
        facts = {"ratio": round(ratio, 2), "lost": round(m["drop_points"], 2), "images": m["images_seen"]}
        if found["better_s"] is None and ratio >= published["ratio"] and m["drop_points"] <= published["lost"]:
            found |= {"better_s": after, "better": facts}
        if found["goal_s"] is None and ratio >= GOAL.ratio and m["drop_points"] <= GOAL.max_drop:
            found |= {"goal_s": after, "goal": facts}
    fifth = published["seconds"] / 5
    return found | {"met": found["better_s"] is not None and found["better_s"] <= fifth}


def moment(event: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def data_tensors(splits: Any) -> Iterable[torch.Tensor]:
    """All tensors that the splits hold, once each."""
    seen: dict[int, torch.Tensor] = {}
    waiting: list[Any] = [splits.train, splits.validation]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            seen[value.untyped_storage().data_ptr()] = value
        elif isinstance(value, np.ndarray):
            seen[value.__array_interface__["data"][0]] = torch.from_numpy(value)
        elif isinstance(value, tuple | list):
            waiting.extend(value)
        elif type(value).__module__.startswith("hirelc") and hasattr(value, "__dict__"):
            waiting.extend(vars(value).values())
    return seen.values()


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# -- growth ------------------------------------------------------------------------------------------------


def blocks_section(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for blocks in (6, 12, 24) if args.quick else (6, 12, 24, 48):
        yield {"section": "blocks", **searched(blocks, cycles=1)}


def searched(blocks: int, cycles: int) -> dict[str, Any]:
    """Process and wall seconds of the parts of a search; measurements are made up."""
    torch.manual_seed(0)
    splits = hirelc.data.make_splits(
        (torch.randn(256, 1, 28, 28), torch.arange(256) % 10), (torch.randn(128, 1, 28, 28), torch.arange(128) % 10)
    )
    config = hirelc.Config(
        fisher_samples=32, calibration_samples=64, search=hirelc.SearchConfig(cycles=cycles, low_level_steps=256)
    )
    with tempfile.TemporaryDirectory() as folder:
        scene = prepared(Layers(blocks), splits, GOAL, Path(folder) / "run", config)
    landscape, clock = scene.landscape, scene.clock

    def policies() -> None:
        search = HierarchicalSearch(landscape, GOAL, config.search, 0)
        for cycle in range(cycles):
            for proposal in search.propose(cycle):
                distortion = distortion_of(landscape, proposal.choices)
                drop = 2.5 * distortion**0.6
                size = landscape.file_bytes(proposal.choices)
                search.observe(proposal, Measurement(size, 90 - drop, drop, 1, "search-validation"))

    with clock("search"):
        policies()
    parts = ("sensitivity", "proxy", "search")
    found: dict[str, Any] = {"blocks": len(landscape.blocks)}
    for kind, seconds in (("wall", clock.wall), ("cpu", clock.cpu)):
        found[kind] = {part: round(seconds[part], 2) for part in parts}
        found[kind]["all"] = round(sum(seconds[part] for part in parts), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="folder with networks.py and the weights")
    parser.add_argument("--network", choices=NETWORKS, default="resnet20")
    parser.add_argument(
        "--quick", action="store_true", help="fewer blocks and steps, a run of a twelfth without its final fine-tune"
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--journal", type=Path, default=HERE / "search.jsonl")
    args = parser.parse_args()
    if args.quick:
        torch.set_num_threads(1)
    about = {
        "commit": commit(),
        "network": args.network,
        "quick": args.quick,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    measure = {"steps": steps_section, "run": run_section, "blocks": blocks_section}
    for section in args.sections:
        for row in measure[section](args):
            with args.journal.open("a") as file:
                file.write(json.dumps(about | row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
