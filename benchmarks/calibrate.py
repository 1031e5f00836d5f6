"""Compression without training on the common benchmark: the searched policy against uniform 3-bit at equal file bytes.

    python benchmarks/calibrate.py --bench ../shared/bench --network vit --seed 0 1 2

Public API only. Uniform: every kernel in a block 3 bits, all channels, learned steps; reconstructed and entropy-coded
like everything else. The searched policy may take exactly the bytes of that file. The test split is read once per
number, after the search. `--bits 2` compares at a smaller size.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

import torch

import hirelc
from hirelc.common_benchmark import benchmark_network
from hirelc.data import load_data
from protocol import NETWORKS, commit

HERE = Path(__file__).parent
TRAIN_LIMIT = 6_000  # protocol A's data; a few hundred of them are used
ANY_SIZE = 1.5  # a ratio that every 3-bit file exceeds


def run(network, splits, goal, out, search, seed):
    """The result, wall seconds, CPU seconds."""
    begun, cpu = time.monotonic(), time.process_time()
    config = hirelc.Config(seed=seed, calibrate_only=True, search=search)
    result = hirelc.compress(network, splits.train, splits.validation, goal, out, test=splits.test, config=config)
    return result, time.monotonic() - begun, time.process_time() - cpu


def row_of(result, network, seed, policy, bits, seconds, cpu_seconds):
    kernels = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    compressed, original = result.compressed, result.original
    return {
        "commit": commit(),
        "network": type(network).__name__,
        "seed": seed,
        "policy": policy,
        "uniform_bits": bits,
        "bytes": compressed.size_bytes,
        "ratio": round(compressed.ratio, 2),
        "file_bits_per_weight": round(8 * compressed.size_bytes / kernels, 3),
        "test": compressed.test,
        "test_original": original.test,
        "test_lost": round(original.test - compressed.test, 3),
        "validation": compressed.validation,
        "validation_lost": round(original.validation - compressed.validation, 3),
        "candidates": [[m.size_bytes, round(m.drop_points, 3)] for m in result.measurements],
        "images_trained_on": 0,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "search": asdict(hirelc.SearchConfig.short()) if policy == "searched" else None,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="folder with networks.py and the weights")
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/calibrate"))
    parser.add_argument("--journal", type=Path, default=HERE / "calibrate.jsonl")
    args = parser.parse_args()
    uniform = hirelc.SearchConfig(cycles=1, strategy="uniform", min_bits=args.bits, max_bits=args.bits, min_keep=1.0)
    for seed in args.seed:
        network = benchmark_network(args.bench, args.network)
        size = None
        for policy, search in (("uniform", uniform), ("searched", hirelc.SearchConfig.short())):
            splits = load_data("fashion-mnist", batch_size=128, train_limit=TRAIN_LIMIT, seed=seed)
            goal = hirelc.Goal(ratio=ANY_SIZE) if size is None else hirelc.Goal(max_bytes=size)
            name = f"{args.network}-{policy}-{args.bits}bit-seed{seed}-{time.strftime('%H%M%S')}"
            found = run(network, splits, goal, args.out / name, search, seed)
            size = size or found[0].compressed.size_bytes
            row = row_of(found[0], network, seed, policy, args.bits, *found[1:])
            with args.journal.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
