"""Mutated files from a seed: bytes, truncations, the manifest's JSON by its structure, models, words.

python tests/artifact/fuzzing.py 200000 [seed]     # says what came of them
"""

from __future__ import annotations

import copy
import json
import random
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from files import HEADER, Parts, signed

from hirelc.artifact.container import open_container, write
from hirelc.artifact.contents import Contents
from hirelc.artifact.load import load
from hirelc.compression.activations import ActivationSite
from hirelc.compression.grid import numbers
from hirelc.compression.quantize import Quantized
from hirelc.compression.rest import CodedTensor
from hirelc.errors import FormatError
from hirelc.layout import Layout, StoredCoupling, StoredKernel, StoredRows, StoredTensor
from hirelc.network.spec import AttributeChange, Coupling, Member
from hirelc.network.surgery import Kept
from hirelc.policy import Choice, Granularity, NumberType

SECONDS = 5.0  # of processor time, one file may take: other programs must not look like a hang
INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    8,
    255,
    256,
    320,
    321,
    1000,
    4096,
    4097,
    2**24,
    2**31 - 1,
    2**31,
    -(2**31),
    2**40,
    2**63,
    2**64,
    10**30,
)
STRINGS = ("", "a.weight", "coded", "float16", "int64", "int", "uniform", "log", "input", "\ud800", "\n", "x" * 300, "ü", "..")
VALUES: tuple[Any, ...] = (None, True, False, 0.5, 1e308, -0.0, [], {}, [[]], {"a": 1}, *STRINGS, *INTEGERS)


class Net(torch.nn.Module):
    """What the smallest of the seeds is a file of."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
        self.heads = 4
        self.register_buffer("index", torch.arange(2))


def small() -> Contents:
    """A file of `Net` with one of everything."""
    kernels = (
        StoredKernel("a.weight", (3, 3), 0, Choice(4, 1.0, NumberType.INT, Granularity.PER_CHANNEL)),
        StoredKernel("b.weight", (1, 3), 0, Choice(3, 1.0, NumberType.INT, Granularity.UNIFORM)),
    )
    codes = torch.tensor([[0, 7, 14], [7, 8, 6], [7, 7, 7]], dtype=torch.uint8)
    quantized = {
        "a.weight": Quantized(kernels[0].choice, codes, numbers(torch.tensor([[-20], [-18], [-20]])), None),
        "b.weight": Quantized(kernels[1].choice, codes[:1] // 2, numbers(torch.tensor([[-9]])), 4),
    }
    rest = {
        "a.bias": CodedTensor(-30, 2, np.array([0, 1, -1], dtype=np.int32)),
        "b.bias": np.array([0.5, 2.0], dtype=np.float16),
        "index": np.array([0, 1], dtype=np.int64),
    }
    tensors = (
        StoredTensor("a.bias", (3,), "coded"),
        StoredTensor("b.bias", (2,), "float16"),
        StoredTensor("index", (2,), "int64"),
    )
    members = (Member("a.weight", 0, (0,), 1), Member("a.bias", 0, (0,), 1), Member("b.weight", 1, (0,), 1))
    coupling = StoredCoupling(Coupling(4, members, (AttributeChange("", "heads", 1),)), 3)
    layout = Layout(kernels, tensors, (coupling,), (StoredRows("b.weight", 2, 1),))
    sites = (ActivationSite("a", "input", 0.5, 3),)
    return Contents(layout, Kept({0: (0, 1, 3)}, {"b.weight": (1,)}), quantized, rest, sites)


def seeds() -> list[bytes]:
    golden = Path(__file__).parent.parent / "golden"
    names = ("constant", "activations", "rest", "empty", "contexts")
    return [write(small())] * 6 + [(golden / f"{name}.hirelc").read_bytes() for name in names]


# -- mutations ---------------------------------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield (*path, key)
        yield from places(child, (*path, key))


def another(value: Any, draw: random.Random) -> Any:
    """A value near the old one, or any."""
    if type(value) is int and draw.random() < 0.6:
        return value + draw.choice((-1, 1, -2, 2, 8, -8, draw.randrange(-300, 300)))
    if isinstance(value, list) and value and draw.random() < 0.6:
        changed = copy.deepcopy(value)
        at = draw.randrange(len(changed))
        match draw.randrange(4):
            case 0:
                del changed[at]
            case 1:
                changed.insert(at, copy.deepcopy(draw.choice(changed)))
            case 2:
                draw.shuffle(changed)
            case _:
                changed += copy.deepcopy(changed) * draw.choice((1, 1, 50))
        return changed
    return copy.deepcopy(draw.choice(VALUES))


def structure(parts: Parts, draw: random.Random) -> Parts:
    fields = parts.fields
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        paths = list(places(fields))
        if not paths:
            break
        path = draw.choice(paths)
        place = fields
        for key in path[:-1]:
            place = place[key]
        if draw.random() < 0.1:
            del place[path[-1]]
        elif draw.random() < 0.2:
            source: Any = fields
            for key in draw.choice(paths):
                source = source[key] if isinstance(source, dict | list) else source
            place[path[-1]] = copy.deepcopy(source)
        else:
            place[path[-1]] = another(place[path[-1]], draw)
    return parts.with_fields(fields)


def models(parts: Parts, draw: random.Random) -> Parts:
    fields = parts.fields
    for _ in range(draw.choice((1, 2, 4))):
        if not fields["models"]:
            fields["models"] = [[0, 0]]
        row = draw.choice(fields["models"])
        if len(row) < 2 or draw.random() < 0.2:
            row.extend(draw.choice((0, 255, 191, 8, 40)) for _ in range(draw.choice((1, 3, 20))))
        at = draw.randrange(len(row))
        near = (row[at] + 1, row[at] - 1) if type(row[at]) is int else ()
        row[at] = draw.choice((0, 1, 7, 8, 16, 191, 192, 254, 255, 256, -1, *near, 2**31, 2.0, None))
    return parts.with_fields(fields)


def text(parts: Parts, draw: random.Random) -> Parts:
    """The JSON text as bytes: cut, doubled, flipped."""
    data = bytearray(json.dumps(parts.fields).encode())
    for _ in range(draw.choice((1, 1, 3))):
        at = draw.randrange(len(data))
        match draw.randrange(4):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + draw.randrange(1, 9)] = b""
            case 2:
                data[at:at] = data[at : at + draw.randrange(1, 40)]
            case _:
                data[at:at] = draw.choice((b"[", b"]", b"1e999", b"NaN", b"\\ud800", b"\xff", b"\0", b"9" * 50, b"[" * 2000))
    return parts.with_text(bytes(data))


def words(parts: Parts, draw: random.Random) -> Parts:
    data = bytearray(parts.words)
    match draw.randrange(5):
        case 0 if data:
            for _ in range(draw.choice((1, 1, 8))):
                data[draw.randrange(len(data))] = draw.choice((0, 255, draw.randrange(256)))
        case 1:
            del data[: 4 * draw.randrange(1, 4)]
        case 2:
            data += draw.randbytes(4 * draw.randrange(1, 4))
        case 3:
            data = bytearray(draw.randbytes(4 * draw.randrange(12)))
        case _:
            data[:] = data[::-1]
    return replace(parts, words=bytes(data))


def sections(parts: Parts, draw: random.Random) -> Parts:
    match draw.randrange(5):
        case 0:
            return replace(parts, raw=parts.raw + draw.randbytes(draw.randrange(1, 9)))
        case 1:
            return replace(parts, raw=parts.raw[: draw.randrange(len(parts.raw) + 1)])
        case 2:
            return replace(parts, raw=draw.randbytes(len(parts.raw)))
        case 3:
            stream = bytearray(parts.manifest)
            stream[draw.randrange(len(stream))] ^= 1 << draw.randrange(8)
            return replace(parts, manifest=bytes(stream))
        case _:
            return replace(parts, manifest=zlib.compress(draw.randbytes(draw.randrange(200))))


def unsigned(data: bytes, draw: random.Random) -> bytes:
    """Bytes, whatever they mean; the digest only sometimes fits."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 10))):
        at = draw.randrange(len(changed))
        match draw.randrange(4):
            case 0:
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at] = draw.choice((0, 255, draw.randrange(256)))
            case 2:
                del changed[at : at + draw.randrange(1, 20)]
            case _:
                changed[at:at] = draw.randbytes(draw.randrange(1, 9))
        if not changed:
            break
    if draw.random() < 0.3:
        del changed[draw.randrange(len(changed) + 1) :]
    return signed(bytes(changed)) if len(changed) > HEADER and draw.random() < 0.7 else bytes(changed)


MUTATIONS: tuple[Callable[[Parts, random.Random], Parts], ...] = (
    structure,
    structure,
    structure,
    models,
    text,
    words,
    sections,
)


def mutant(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """What was done, and the file."""
    if draw.random() < 0.15:
        return "bytes", unsigned(data, draw)
    kind = draw.choice(MUTATIONS)
    parts = kind(Parts.of(data), draw)
    if draw.random() < 0.1:
        parts = draw.choice((words, sections))(parts, draw)
    return kind.__name__, parts.pack()


# -- judging -----------------------------------------------------------------------------------------------


class Hang(Exception):
    """A file took too long."""


def _alarm(_signal: int, _frame: FrameType | None) -> None:
    raise Hang


def attempt(data: bytes, factory: Callable[[], torch.nn.Module] | None) -> str:
    """Reads a file and says "read" or "refused"; whatever else happens is raised."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        open_container(data)
        if factory is None:
            return "read"
        load(data, factory)
    except FormatError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        str(error).encode()
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "loaded"


def run(count: int, seed: int) -> Counter[str]:
    """Reads so many mutants; the first file that does anything but read or be refused is raised with its bytes."""
    draw = random.Random(seed)
    files = seeds()
    outcomes: Counter[str] = Counter()
    before = signal.signal(signal.SIGPROF, _alarm)
    try:
        for _ in range(count):
            source = draw.choice(files)
            kind, data = mutant(source, draw)
            factory = Net if source is files[0] and draw.random() < 0.2 else None
            try:
                outcomes[f"{kind}: {attempt(data, factory)}"] += 1
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}, {kind}: {type(error).__name__}: {error}; the file is {data.hex()}"
                ) from error
    finally:
        signal.signal(signal.SIGPROF, before)
    return outcomes


def main() -> None:
    begun = time.monotonic()
    count = int(sys.argv[1])
    outcomes = run(count, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    seconds = time.monotonic() - begun
    lines = [f"{n:8} {name}" for name, n in sorted(outcomes.items())]
    sys.stdout.write("\n".join([*lines, f"{count} files in {seconds:.0f} s, {1e6 * seconds / count:.0f} us each\n"]))


if __name__ == "__main__":
    main()
