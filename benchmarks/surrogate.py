"""How well the drop after fine-tuning is predicted: the samples' mean, the cold-start law, the surrogate.

    python benchmarks/surrogate.py --bench DIR --network resnet20|vit   # measures 40 policies, then reports
    python benchmarks/surrogate.py --network small                      # of a small network trained on the spot: minutes
    ... --policies 0                                                    # reports what the journal holds

Policies of five kinds at eight sizes: the reference, the reference with kernels redrawn or slimmer, random ones with
and without pruning, each fitted to its size. Each starts from the original, is fine-tuned for a few images and measured
on the whole search-validation split, and goes to the journal: a run that was stopped goes on where it stood. The report
predicts every policy from the others (leave-one-out), and policies from fewer others (held out). Drops of 5,000 images differ
by chance: what the measured losses themselves make of the drops is the ceiling, and predictions are ranked against them, too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hirelc
from hirelc.compression.apply import apply
from hirelc.landscape import Landscape
from hirelc.policy import Choice, Measurement
from hirelc.search.bounds import Bounds, random_choices
from hirelc.search.fitting import fit_to_bytes, reference
from hirelc.search.likely import Scale
from hirelc.search.surrogate import ColdStart, Surrogate, network_features, rank_correlation
from protocol import NETWORKS, commit
from scene import Scene, images, prepared, small, trained

HERE = Path(__file__).parent
KINDS = ("reference", "redrawn", "slimmer", "random", "random, all channels")
REDRAWN, SLIM = 0.4, 0.7  # share of the kernels that differ from the reference; the channels that the slimmer keep
SIZES = 8
RATIOS = (6.0, 30.0)
TRAIN_LIMIT = 6_000  # protocol A's data
RATE, BATCH = 5e-4, 64  # a short fine-tune wants a low learning rate and many steps
CHOSEN_ON = 512  # validation images by which a fine-tune keeps its best state; the score is of all 5,000
REGION = 3.0  # points lost: the region of interest
DRAWS = 5  # of which policies are held out

Choices = tuple[tuple[Choice, ...], ...]


# -- measuring ---------------------------------------------------------------------------------------------


def policies(landscape: Landscape, count: int, seed: int) -> Iterator[tuple[str, float, Choices]]:
    """(kind, ratio, choices), the same ones for the same seed."""
    bounds = Bounds.of(hirelc.SearchConfig())
    blocks = landscape.blocks
    generator = np.random.default_rng(seed)
    ratios = np.geomspace(*RATIOS, SIZES)
    order = np.random.default_rng(seed).permutation([(kind, size) for kind in range(len(KINDS)) for size in range(SIZES)])
    for kind, size in order[:count].tolist():
        limit = round(landscape.original_bytes / ratios[size])
        start = reference(landscape, limit, bounds).choices
        drawn = [random_choices(block, bounds, generator) for block in blocks]
        moved = [generator.random(len(block)) < REDRAWN for block in drawn]
        if KINDS[kind] == "redrawn":
            drawn = [mixed(*three) for three in zip(start, drawn, moved, strict=True)]
        if KINDS[kind] == "slimmer":
            slim = [tuple(replace(choice, keep_ratio=SLIM) for choice in block) for block in start]
            drawn = [mixed(*three) for three in zip(start, slim, moved, strict=True)]
        if KINDS[kind] == "random, all channels":
            drawn = [tuple(replace(choice, keep_ratio=1.0) for choice in block) for block in drawn]
        fit = fit_to_bytes(landscape, start if KINDS[kind] == "reference" else drawn, limit, [bounds] * len(blocks))
        yield KINDS[kind], ratios[size], fit.choices


def mixed(one: Sequence[Choice], other: Sequence[Choice], taken: np.ndarray) -> tuple[Choice, ...]:
    return tuple(b if take else a for a, b, take in zip(one, other, taken, strict=True))


def measure(scene: Scene, choices: Choices, images_each: int, name: str) -> dict[str, Any]:
    """Each fine-tune starts from the original: the order leaves no trace."""
    bench, begun, cpu = scene.bench, time.perf_counter(), time.process_time()
    policy, expected = scene.landscape.policy(choices), scene.landscape.file_bytes(choices)
    compressed = apply(bench.original, bench.spec, policy, bench.importance, bench.fisher)
    whole = bench.trainer
    bench.trainer = replace(whole, validation=Few(whole.validation))
    try:
        result, data = bench.finetune(compressed, expected, images_each, name=name, evaluations=1)
    finally:
        bench.trainer = whole
    verdict = bench.read_back(data)
    return {
        "size_bytes": len(data),
        "expected_bytes": expected,
        "drop": round(bench.baseline - verdict.points, 3),
        "excess_loss": verdict.excess_loss,
        "images": result.images,
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


@dataclass(frozen=True)
class Few:
    """The first samples of a split, in whole batches."""

    whole: Any
    samples: int = CHOSEN_ON

    def epoch(self, seed: int, training: bool) -> Iterator[Any]:
        return itertools.islice(self.whole.epoch(seed, training), self.samples // BATCH)


def written(choices: Choices) -> list[list[str]]:
    return [[f"{c.bits}/{c.coarse}/{c.keep_ratio:.6g}/{c.number_type}/{c.granularity}" for c in block] for block in choices]


def reread(rows: list[list[str]]) -> Choices:
    def one(text: str) -> Choice:
        bits, coarse, keep, kind, layout = text.split("/")
        return Choice(
            bits=int(bits),
            coarse=int(coarse),
            keep_ratio=float(keep),
            number_type=hirelc.NumberType(kind),
            granularity=hirelc.Granularity(layout),
        )

    return tuple(tuple(one(text) for text in block) for block in rows)


def measure_missing(scene: Scene, args: argparse.Namespace, known: Sequence[dict[str, Any]]) -> None:
    done = {(r["seed"], r["index"]) for r in known}
    for index, (kind, ratio, choices) in enumerate(policies(scene.landscape, args.policies, args.seed)):
        if (args.seed, index) in done:
            continue
        row = {
            "commit": commit(),
            "network": args.network,
            "seed": args.seed,
            "index": index,
            "kind": kind,
            "ratio": round(ratio, 2),
            **measure(scene, choices, args.images, f"policy-{index}"),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "choices": written(choices),
        }
        with args.journal.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({k: v for k, v in row.items() if k != "choices"}), flush=True)


# -- reporting ---------------------------------------------------------------------------------------------

Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # known features, known drops, features -> drops


def by_mean(known: np.ndarray, drops: np.ndarray, asked: np.ndarray) -> np.ndarray:
    return np.full(len(asked), drops.mean())


def by_law(known: np.ndarray, drops: np.ndarray, asked: np.ndarray) -> np.ndarray:
    law = ColdStart().refitted(known, drops)
    return np.array([law.predict(row) for row in asked])


def surrogate_of(known: np.ndarray, drops: np.ndarray) -> Surrogate:
    surrogate = Surrogate(0, hirelc.SearchConfig().surrogate_min_samples)
    surrogate.learn(known, drops.tolist())
    return surrogate


def by_surrogate(known: np.ndarray, drops: np.ndarray, asked: np.ndarray) -> np.ndarray:
    surrogate = surrogate_of(known, drops)
    return np.array([surrogate.predict(row) for row in asked])


PREDICTORS: dict[str, Predictor] = {"mean": by_mean, "cold-start law": by_law, "surrogate": by_surrogate}


def quality(predicted: np.ndarray, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlation of all, with losses as well, mean absolute error in points of all and of those in the region of
    interest."""
    drops, losses = (np.array([row[key] for row in rows]) for key in ("drop", "excess_loss"))
    errors, near = np.abs(predicted - drops), drops <= REGION
    rho, rho_near = rank_correlation(predicted, drops), rank_correlation(predicted[near], drops[near])
    return {
        "rank_correlation": rho,
        "rank_correlation_region": rho_near,
        "rank_correlation_loss": rank_correlation(predicted, losses),
        "error": float(errors.mean()),
        "error_region": float(errors[near].mean()),
    }


def rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}


def report(landscape: Landscape, rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Predictions learn from likely drops, as they do in a search, and are held against measured ones."""
    inputs = np.array([network_features(landscape, reread(row["choices"])) for row in rows])
    drops = np.array([row["drop"] for row in rows])
    scale = Scale.of(measurements_of(rows))
    told = np.array([scale.of_loss(row["excess_loss"]) for row in rows])
    region = int((drops <= REGION).sum())
    ceiling = {"predictor": "measured losses", "policies": len(drops), "in_region": region, "from": len(drops)}
    found = [ceiling | rounded(quality(told, rows))]
    for name, predictor in PREDICTORS.items():
        others = ~np.eye(len(drops), dtype=bool)
        guesses = np.array([predictor(inputs[o], likely(rows, o), inputs[[i]])[0] for i, o in enumerate(others)])
        about = {"predictor": name, "policies": len(drops), "in_region": region}
        found.append(about | {"from": len(drops) - 1} | rounded(quality(guesses, rows)))
        for known in (10, 20, 30):
            if known + 5 <= len(drops):
                found.append(about | {"from": known} | rounded(held_out(predictor, inputs, rows, known, seed)))
    return found


def likely(rows: Sequence[dict[str, Any]], which: np.ndarray) -> np.ndarray:
    """What the losses of some rows make of their drops.

    :param which: indices, or a mask
    """
    found = measurements_of([rows[i] for i in np.arange(len(rows))[which]])
    scale = Scale.of(found)
    return np.array([scale.likely(measurement) for measurement in found])


def measurements_of(rows: Sequence[dict[str, Any]]) -> list[Measurement]:
    return [Measurement(r["size_bytes"], 0.0, r["drop"], 0, "search-validation", excess_loss=r["excess_loss"]) for r in rows]


def held_out(predictor: Predictor, inputs: np.ndarray, rows: Sequence[dict[str, Any]], known: int, seed: int) -> dict[str, Any]:
    """Means over draws of which policies are known."""
    generator, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        order = generator.permutation(len(rows))
        learned, asked = order[:known], order[known:]
        predicted = predictor(inputs[learned], likely(rows, learned), inputs[asked])
        found.append(quality(predicted, [rows[i] for i in asked]))
    known_ones = {key: [q[key] for q in found if q[key] is not None] for key in found[0]}
    return {key: float(np.mean(values)) if values else None for key, values in known_ones.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, help="folder with networks.py and the weights")
    parser.add_argument("--network", choices=(*NETWORKS, "small"), required=True)
    parser.add_argument("--policies", type=int, default=40)
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=HERE / "surrogate.jsonl")
    args = parser.parse_args()
    if args.network != "small" and args.bench is None:
        parser.error(f"--bench names the folder that holds the network {args.network}")

    train = hirelc.TrainConfig(learning_rate=RATE, batch_size=BATCH)
    config = hirelc.Config(seed=args.seed, train=train)
    with tempfile.TemporaryDirectory() as folder:
        goal = hirelc.Goal(ratio=sum(RATIOS) / 2)
        splits = images(TRAIN_LIMIT, batch=BATCH)
        network = small(splits) if args.network == "small" else trained(args.bench, args.network)
        scene = prepared(network, splits, goal, Path(folder) / "run", config)
        measure_missing(scene, args, measured(args))
    rows = measured(args)
    if len(rows) > 1:
        about = {"commit": commit(), "network": args.network, "seed": args.seed, "images": args.images}
        lines = [about | line for line in report(scene.landscape, rows, args.seed)]
        with args.journal.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        print("\n".join(map(json.dumps, lines)))


def measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    lines = args.journal.read_text().splitlines() if args.journal.exists() else []
    rows = [json.loads(line) for line in lines if line.strip()]
    return [r for r in rows if r.get("choices") and r["network"] == args.network and r["seed"] == args.seed]


if __name__ == "__main__":
    main()
