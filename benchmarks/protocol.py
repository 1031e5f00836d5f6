"""The common benchmark: a network, a protocol, a goal; public API only. Prints a table row and appends it to a journal.

    python benchmarks/protocol.py --bench ../shared/bench --network vit --protocol A --ratio 10.2 --seed 0

Protocol A fine-tunes on 6,000 images and sees at most 240,000; protocol B on 55,000 and sees at most 1,100,000.
`--also` picks further goals from the same run. The test split is read once per number, after the search. `--strategy` runs
a rival under the same budget, measure and final fine-tune, `--without` the method with one part off; `hirelc ablate`
compares all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path

import torch

import hirelc
from hirelc.artifact.container import VERSION
from hirelc.common_benchmark import benchmark_network
from hirelc.controls import planned_images
from hirelc.data import load_data

PROTOCOLS = {"A": (6_000, 240_000), "B": (55_000, 1_100_000)}
NETWORKS = ("resnet20", "vit")
HERE = Path(__file__).parent


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="folder with networks.py and the weights")
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), default="A")
    parser.add_argument("--ratio", type=float, required=True)
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--also", type=float, nargs="*", default=[], help="further goals, picked from the same run")
    parser.add_argument("--search-share", type=float, default=hirelc.TrainConfig.search_share, help="of the training budget")
    parser.add_argument("--strategy", default="hirelc")
    parser.add_argument("--without", help="a part of hirelc to switch off")
    parser.add_argument("--images", type=int, help="a smaller training budget than the protocol's")
    parser.add_argument("--final-rate", type=float, help="learning rate of the final fine-tune, as a factor")
    parser.add_argument("--no-rate-term", action="store_true", help="what the rate term is worth: the same run without")
    parser.add_argument("--no-control", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--journal", type=Path, default=HERE / "results.jsonl")
    args = parser.parse_args()

    limit, images = PROTOCOLS[args.protocol]
    images = min(images, args.images or images)
    network = benchmark_network(args.bench, args.network)
    given = {"train_limit": limit, "seed": args.seed}
    config = hirelc.Config(
        seed=args.seed,
        search=hirelc.SearchConfig(strategy=args.strategy, without=args.without),
        train=hirelc.TrainConfig(
            images=images,
            search_share=args.search_share,
            final_rate=args.final_rate,
            control=not args.no_control,
            rate_term=not args.no_rate_term,
        ),
    )
    name = f"{args.network}-{args.protocol}-{args.strategy}-{args.ratio:g}x-seed{args.seed}-{time.strftime('%H%M%S')}"
    run, goal = args.out / name, hirelc.Goal(ratio=args.ratio, max_drop=args.max_drop)
    splits, begun = load_data("fashion-mnist", **given), time.monotonic()
    result = hirelc.compress(network, splits.train, splits.validation, goal, run, test=splits.test, config=config)
    keep(args, result, result.images_seen, time.monotonic() - begun)
    searched = result.images_seen - (planned_images(run) or 0)
    for ratio in args.also:
        splits, begun = load_data("fashion-mnist", **given), time.monotonic()  # each number opens the test split once
        goal, out = hirelc.Goal(ratio=ratio, max_drop=args.max_drop), args.out / f"{name}-picked-{ratio:g}x"
        result = hirelc.pick(run, network, splits.train, splits.validation, goal, out, test=splits.test)
        keep(args, result, searched + result.images_seen, time.monotonic() - begun)


def keep(args: argparse.Namespace, result: hirelc.Result, images: int, seconds: float) -> None:
    """Prints a row and appends it to the journal.

    :param images: that search and final fine-tune saw together
    """
    row = {
        "commit": commit(),
        "format": VERSION,
        "network": args.network,
        "protocol": args.protocol,
        "strategy": args.strategy if args.without is None else f"without-{args.without}",
        "rate_term": not args.no_rate_term,
        "goal_ratio": result.goal.ratio,
        "seed": args.seed,
        "bytes": result.compressed.size_bytes,
        "ratio": round(result.compressed.ratio, 2),
        "test": result.compressed.test,
        "test_original": result.original.test,
        "test_control": None if result.control is None else result.control.test,
        "loss_points": round(result.loss_points, 3),
        "validation": result.compressed.validation,
        "macs": result.compressed.macs,
        "mac_ratio": round(result.original.macs / result.compressed.macs, 3),
        "images_seen": images,
        "seconds": round(seconds),
        "shortfall": result.shortfall,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    with args.journal.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1), flush=True)


if __name__ == "__main__":
    main()
