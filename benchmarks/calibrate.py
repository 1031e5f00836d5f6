"""Compression without training on the common benchmark: the searched policy against uniform 3-bit at equal file bytes.

    python benchmarks/calibrate.py --bench ../shared/bench --network vit --seed 0 1 2

Uniform: every kernel in a block 3-bit integers (eight levels), all channels, one step per channel of least error, first
and last kernel 8 bits; reconstructed and entropy-coded by the same machinery. That policy is measured by the bench of a
run, for no search proposes it: below four bits hirelc's own ladder has coarser steps instead of fewer levels. The searched
policy may take exactly the bytes of that file. The test split is read once per number, after everything else.
`--bits 2` compares at a smaller size.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

import hirelc
from hirelc.common_benchmark import benchmark_network
from hirelc.data import load_data
from hirelc.measure.evaluate import accuracy
from hirelc.pipeline import make_bench, prepare
from hirelc.progress import Silent
from hirelc.store import RunDirectory
from hirelc.task import CLASSIFICATION
from protocol import NETWORKS, commit

HERE = Path(__file__).parent
TRAIN_LIMIT = 6_000  # protocol A's data; a few hundred of them are used
FRAME_BITS = 8
ANY_BYTES = 10**9  # nothing is to be led to a length


@dataclass(frozen=True)
class Found:
    size_bytes: int
    test: float
    test_original: float
    validation: float
    validation_original: float
    candidates: list
    seconds: float
    cpu_seconds: float


def measured(measure):
    """What it returns, with wall and CPU seconds after it."""
    begun, cpu = time.monotonic(), time.process_time()
    found = measure()
    return Found(*found, time.monotonic() - begun, time.process_time() - cpu)


def uniform(network, splits, out, bits, seed):
    config = hirelc.Config(seed=seed, calibrate_only=True)
    data = {"train": splits.train, "val": splits.validation, "test": splits.test}
    run = prepare(network, data, hirelc.Goal(max_bytes=ANY_BYTES), config, CLASSIFICATION, Silent())(RunDirectory.create(out))
    baseline, _, _, bench = make_bench(run)
    plain = hirelc.Choice(bits=bits, granularity="learned")
    policy = hirelc.Policy.of(
        {k.name: plain if k.block is not None else replace(plain, bits=FRAME_BITS) for k in run.spec.kernels}
    )
    measurement, candidate = bench.measure(policy, ANY_BYTES, 0, "uniform")
    (out / "model.hirelc").write_bytes(candidate.data)
    splits.test.unseal()
    read_back = hirelc.load(out / "model.hirelc", lambda: copy.deepcopy(network))
    test = accuracy(read_back, splits.test, CLASSIFICATION)
    original = accuracy(network, splits.test, CLASSIFICATION)
    candidates = [[measurement.size_bytes, round(measurement.drop_points, 3)]]
    return measurement.size_bytes, test, original, measurement.accuracy, baseline, candidates


def searched(network, splits, out, size, seed):
    config = hirelc.Config(seed=seed, calibrate_only=True)
    goal = hirelc.Goal(max_bytes=size)
    result = hirelc.compress(network, splits.train, splits.validation, goal, out, test=splits.test, config=config)
    end, start = result.compressed, result.original
    candidates = [[m.size_bytes, round(m.drop_points, 3)] for m in result.measurements]
    return end.size_bytes, end.test, start.test, end.validation, start.validation, candidates


def row_of(found, network, seed, policy, bits):
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    return {
        "commit": commit(),
        "network": type(network).__name__,
        "seed": seed,
        "policy": policy,
        "uniform_bits": bits,
        "bytes": found.size_bytes,
        "file_bits_per_weight": round(8 * found.size_bytes / weights, 3),
        "test": found.test,
        "test_lost": round(found.test_original - found.test, 3),
        "validation_lost": round(found.validation_original - found.validation, 3),
        "candidates": found.candidates,
        "images_trained_on": 0,
        "seconds": round(found.seconds, 1),
        "cpu_seconds": round(found.cpu_seconds, 1),
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
    for seed in args.seed:
        network = benchmark_network(args.bench, args.network)
        size = 0
        for policy in ("uniform", "searched"):
            splits = load_data("fashion-mnist", train_limit=TRAIN_LIMIT, seed=seed)
            out = args.out / f"{args.network}-{policy}-{args.bits}bit-seed{seed}-{time.strftime('%H%M%S')}"
            if policy == "uniform":
                found = measured(partial(uniform, network, splits, out, args.bits, seed))
                size = found.size_bytes
            else:
                found = measured(partial(searched, network, splits, out, size, seed))
            row = row_of(found, network, seed, policy, args.bits)
            with args.journal.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
