"""What the file weighs, beside entropy, general compressors and NNCodec; how fast it is written and read.

    python benchmarks/file.py runs/mine/model.hirelc ...      # files of yours
    python benchmarks/file.py --bench DIR                     # the common benchmark's networks, uniform bits, no fine-tuning
    python benchmarks/file.py --speed                         # a file of 21 million weights
    ... --nncodec-python VENV/bin/python                      # beside NNCodec, which lives in an environment of its own

NNCodec wants numpy below 2 and a torchvision:  python3.11 -m venv VENV && VENV/bin/pip install nncodec
It gets the same integers (codes of kernels, exponents of scales, integers of the rest) and codes them losslessly.

*packed* are codes at their bits, one after the other, scales and all other floats in fp16, integers in int64: what a
file without an entropy coder would hold. `zstd -19` and `xz -9e` compress it as a whole. *no_weights* is the share of
masks, scales, norms, biases and embeddings; *no_codes* counts header and manifest (names, shapes, models) too. Rows go to
results-file.jsonl; a file of a run is called by the run's folder.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import hirelc
from hirelc.artifact.container import pack, read, write
from hirelc.common_benchmark import benchmark_network
from hirelc.compression.apply import apply
from hirelc.compression.rest import CodedTensor
from protocol import NETWORKS, commit

HERE = Path(__file__).parent
UNIFORM_BITS = (8, 4, 3, 2)
HIDDEN = (1024, 4096)  # of the fast-lane network
# what the other environment runs: integers in, bytes and a check out
NNCODEC = """
import contextlib, io, sys, time
import numpy
tensors = dict(numpy.load(sys.argv[1]))
with contextlib.redirect_stdout(io.StringIO()):
    from nncodec.nn import decode, encode
    begun = time.perf_counter()
    coded = encode(tensors)
    middle = time.perf_counter()
    back = decode(coded)
    end = time.perf_counter()
same = all((back[name] == tensor).all() for name, tensor in tensors.items())
print(len(coded), int(same), middle - begun, end - middle)
"""


# -- files -------------------------------------------------------------------------------------------------


def compressed(network: nn.Module, inputs: torch.Tensor, bits: int) -> Any:
    """Every kernel alike, the first and the last at 8 bits; nothing pruned, nothing trained."""
    spec = hirelc.trace(network.eval(), inputs)
    ends = (spec.kernels[0].name, spec.kernels[-1].name)
    choice = {
        k.name: hirelc.Choice(8 if k.name in ends else bits, granularity=hirelc.Granularity.PER_CHANNEL) for k in spec.kernels
    }
    weights = dict(network.named_parameters())
    return apply(network, spec, hirelc.Policy.of(choice), {k.name: weights[k.name].detach().square() for k in spec.kernels})


def bench_files(bench: Path, folder: Path) -> Iterator[Path]:
    for name in NETWORKS:
        network = benchmark_network(bench, name)
        for bits in UNIFORM_BITS:
            path = folder / f"{name}-{bits}bit.hirelc"
            path.write_bytes(pack(compressed(network, torch.randn(2, 1, 28, 28), bits)))
            yield path


# -- sizes -------------------------------------------------------------------------------------------------


def packed(view: hirelc.artifact.inspect.FileView) -> bytes:  # type: ignore[name-defined]
    """Codes at their bits, scales and rest in fp16, masks as bits."""
    parts = []
    for kernel in view.kernels.values():
        bits = np.unpackbits(kernel.codes.reshape(-1, 1), axis=1)[:, 8 - kernel.choice.bits :]
        parts.append(np.packbits(bits).tobytes())
        if kernel.mask is not None:
            parts.append(np.packbits(kernel.mask).tobytes())
    parts += [kernel.scales.astype(np.float16).tobytes() for kernel in view.kernels.values()]
    with np.errstate(over="ignore"):
        for value in view.rest.values():
            parts.append(value.tobytes() if value.dtype == np.int64 else value.astype(np.float16).tobytes())
    return b"".join(parts)


def integers(path: Path) -> dict[str, np.ndarray]:
    """Everything that the file codes, as signed integers around zero; raw tensors as float32."""
    contents = read(path)
    tensors: dict[str, np.ndarray] = {}
    for stored in contents.layout.kernels:
        kernel = contents.kernels[stored.name]
        middle = kernel.zero_point if kernel.zero_point is not None else int(kernel.codes.max()) // 2
        codes = kernel.codes.numpy().astype(np.int32)
        tensors[stored.name] = codes - (middle if kernel.zero_point is not None else _middle(stored.choice))
        exponents = np.rint(8 * np.log2(kernel.scale.numpy().ravel().astype(np.float64))).astype(np.int32)
        tensors[f"{stored.name}:scale"] = exponents - int(np.median(exponents))
    for tensor in contents.layout.rest:
        value = contents.rest[tensor.name]
        if isinstance(value, CodedTensor):
            tensors[tensor.name] = value.symbols.reshape(tensor.shape or (1,)).astype(np.int32)
        elif value.size:
            tensors[tensor.name] = value.astype(np.int32 if value.dtype == np.int64 else np.float32)
    return {name: tensor for name, tensor in tensors.items() if tensor.size}


def _middle(choice: hirelc.Choice) -> int:
    from hirelc.formats import levels_of

    return len(levels_of(choice)) // 2


def nncodec(python: Path, path: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:  # NNCodec leaves its own file where it runs
        np.savez(f"{folder}/integers.npz", **integers(path))  # type: ignore[arg-type]
        command = [str(python.absolute()), "-c", NNCODEC, "integers.npz"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise SystemExit(f"NNCodec failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    size, same, encoding, decoding = (float(x) for x in done.stdout.split())
    if not same:
        raise SystemExit("NNCodec did not give back the same integers")
    return {"nncodec": int(size), "nncodec_encode_s": round(encoding, 4), "nncodec_decode_s": round(decoding, 4)}


def size_row(path: Path, python: Path | None) -> dict[str, Any]:
    try:
        import zstandard
    except ImportError:
        raise SystemExit("this benchmark compares with zstd: run  pip install zstandard  and try again") from None
    view = hirelc.open_file(path)
    plain = packed(view)
    entropy = math.ceil(view.entropy_bits / 8)
    rest = sum(view.parts[part] for part in ("masks", "scales", "values", "raw"))
    row = {
        "file": path.name if path.name != "model.hirelc" else path.resolve().parent.name,
        "bytes": view.size_bytes,
        "entropy": entropy,
        "of_goal": round(view.size_bytes / (1.02 * entropy + 2048), 4),
        "packed": len(plain),
        "zstd": len(zstandard.ZstdCompressor(level=19).compress(plain)),
        "xz": len(lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME)),
        "no_weights": round(rest / view.size_bytes, 4),
        "no_codes": round(1 - view.parts["codes"] / view.size_bytes, 4),
        "manifest": int(view.parts["manifest"]),
        "raw": int(view.parts["raw"]),
        "bits_per_weight": round(8 * view.size_bytes / sum(k.weights for k in view.kernels.values()), 4),
    }
    return row | (nncodec(python, path) if python else {})


# -- speed -------------------------------------------------------------------------------------------------


def large_network() -> nn.Module:
    """About 21 million weights of a heavy-tailed spread that differs by row, as training leaves them."""
    narrow, wide = HIDDEN
    layers = [nn.Linear(narrow, wide), nn.GELU(), nn.Linear(wide, narrow), nn.GELU()]
    layers += [nn.Linear(narrow, wide), nn.GELU(), nn.Linear(wide, narrow), nn.GELU(), nn.Linear(narrow, wide)]
    network = nn.Sequential(*layers).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            tails = (
                torch.randn(parameter.shape, generator=generator) * (1 + torch.rand(parameter.shape, generator=generator)) ** 2
            )
            rows = torch.exp(0.3 * torch.randn(len(parameter), generator=generator))
            parameter.copy_(0.02 * tails * rows.view(-1, *[1] * (parameter.ndim - 1)))
    return network


def best(call: Any, times: int = 5) -> float:
    """Processor seconds of the fastest of several calls, on one thread: a shared machine only ever slows down."""
    seconds = []
    for _ in range(times):
        begun = time.process_time()
        call()
        seconds.append(time.process_time() - begun)
    return min(seconds)


def speed_row(bits: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    made = compressed(large_network(), torch.randn(1, HIDDEN[0]), bits)
    data = pack(made)
    contents = read(data)
    if write(contents) != data:
        raise SystemExit("writing what was read gave another file")
    millions = sum(k.codes for k in contents.layout.kernels) / 1e6
    decode, encode = best(lambda: read(data)), best(lambda: write(contents))
    return {
        "speed_bits": bits,
        "million_weights": round(millions, 1),
        "bytes": len(data),
        "decode_millions_per_s": round(millions / decode, 1),
        "encode_millions_per_s": round(millions / encode, 1),
        "encode_over_decode": round(encode / decode, 2),
    }


# -- printing ----------------------------------------------------------------------------------------------


def show(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[f"{v:,}" if isinstance(v := row.get(c, "-"), int) else str(v) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print()


def verdicts(sizes: list[dict[str, Any]], speeds: list[dict[str, Any]]) -> Iterator[str]:
    def say(name: str, good: list[bool]) -> str:
        return f"{'met' if all(good) else 'MISSED'}: {name} ({sum(good)} of {len(good)})"

    if sizes:
        yield say("file at most 1.02 x entropy + 2 KB", [r["of_goal"] <= 1 for r in sizes])
        yield say("smaller than zstd -19 of packed", [r["bytes"] < r["zstd"] for r in sizes])
        yield say("smaller than xz -9e of packed", [r["bytes"] < r["xz"] for r in sizes])
        yield say("masks, scales, norms, biases and embeddings at most a tenth", [r["no_weights"] <= 0.1 for r in sizes])
    if sizes and "nncodec" in sizes[0]:
        yield say("smaller than NNCodec of the same integers", [r["bytes"] < r["nncodec"] for r in sizes])
    if speeds:
        yield say("decoding at least 20 million weights per second", [r["decode_millions_per_s"] >= 20 for r in speeds])
        yield say("encoding within 3 times of decoding", [r["encode_over_decode"] <= 3 for r in speeds])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help=".hirelc files")
    parser.add_argument("--bench", type=Path, help="folder with networks.py and the weights")
    parser.add_argument("--speed", action="store_true", help="measure encoding and decoding, too")
    parser.add_argument("--nncodec-python", type=Path, help="python of an environment with nncodec")
    parser.add_argument("--journal", type=Path, default=HERE / "results-file.jsonl")
    args = parser.parse_args()
    if not (args.files or args.bench or args.speed):
        parser.error("name files, or --bench DIR, or --speed")
    with tempfile.TemporaryDirectory() as folder:
        files = [*args.files, *(bench_files(args.bench, Path(folder)) if args.bench else ())]
        sizes = [size_row(path, args.nncodec_python) for path in files]
    speeds = [speed_row(bits) for bits in UNIFORM_BITS] if args.speed else []
    show(sizes)
    show(speeds)
    print("\n".join(verdicts(sizes, speeds)))
    if sizes and not args.nncodec_python:
        print("NNCodec was not asked: see --nncodec-python", file=sys.stderr)
    machine = {"commit": commit(), "machine": f"{platform.machine()}, 1 thread", "python": platform.python_version()}
    with args.journal.open("a") as journal:
        journal.writelines(json.dumps(machine | row) + "\n" for row in (*sizes, *speeds))


if __name__ == "__main__":
    main()
