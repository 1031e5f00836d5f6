"""What the rate term is worth: the reference policy at several sizes, fine-tuned with it and without.

    python benchmarks/rate.py --bench ../shared/bench --network resnet20 [--ratios 12 25 40 55] [--images 12800] [--seeds 1]

Each candidate starts from the original's weights, at the same steps and for the same images, and is rounded to its length at
the end where it has to be. Without the rate term all of the size has to come from coarser steps at the start. Accuracy on the
search-validation split, of the network read back from its file; the test split stays closed. Rows go to rate.jsonl, and by
`tables.py` into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import hirelc
from hirelc.search.bounds import Bounds
from hirelc.search.fitting import reference
from protocol import HERE, NETWORKS, commit
from scene import images, prepared, trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="folder with networks.py and the weights")
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--ratios", type=float, nargs="+", default=[12.0, 25.0, 40.0, 55.0])
    parser.add_argument("--images", type=int, default=12_800, help="of each fine-tune")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--journal", type=Path, default=HERE / "rate.jsonl")
    args = parser.parse_args()
    for seed in range(args.seeds):
        for rate_term in (True, False):
            config = hirelc.Config(seed=seed, train=hirelc.TrainConfig(rate_term=rate_term))
            splits = images(55_000, seed)
            with tempfile.TemporaryDirectory() as folder:
                goal = hirelc.Goal(ratio=min(args.ratios))
                scene = prepared(trained(args.bench, args.network), splits, goal, Path(folder) / "run", config)
                bounds, original = Bounds.of(config.search), scene.landscape.original_bytes
                for ratio in args.ratios:
                    limit = int(original / ratio)
                    policy = scene.landscape.policy(reference(scene.landscape, limit, bounds).choices)
                    fresh = replace(scene.bench)  # no fine-tune goes on from another
                    found, _ = fresh.measure(policy, limit, args.images, f"rate-{ratio:g}")
                    row = {
                        "commit": commit(),
                        "network": args.network,
                        "seed": seed,
                        "goal_ratio": ratio,
                        "rate_term": rate_term,
                        "bytes": found.size_bytes,
                        "ratio": round(original / found.size_bytes, 1),
                        "drop": round(found.drop_points, 2),
                        "failure": found.failure,
                        "images": args.images,
                    }
                    print(json.dumps(row), flush=True)
                    with args.journal.open("a") as journal:
                        journal.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
