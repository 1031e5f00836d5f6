"""A reader of .hirelc files written from docs/format.md alone: no hirelc, no constriction, no torch.

Slow and plain. numpy serves only where the format asks for float32 arithmetic. It believes what it reads: what must be
refused is tested against the real reader.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

T = (16777216, 15384775, 14107901, 12937002, 11863283, 10878679, 9975792, 9147842)
B = tuple(np.float32(b) for b in (1, 1.0905077, 1.1892071, 1.2968396, 1.4142135, 1.5422108, 1.6817929, 1.8340081))
MINIFLOATS = {8: (4, 3), 7: (3, 3), 6: (3, 2), 5: (2, 2), 4: (2, 1), 3: (1, 1), 2: (1, 0)}
RAW = {"float16": "<f2", "float32": "<f4", "int64": "<i8"}


@dataclass(frozen=True)
class Model:
    first: int
    frequencies: tuple[int, ...]

    @classmethod
    def of_weights(cls, first: int, weights: list[int]) -> Model:
        n, total = len(weights), sum(weights)
        sums = [0, *accumulate(weights)]
        g = [c * (2**24 - n) // total for c in sums]
        return cls(first, tuple(b - a + 1 for a, b in pairwise(g)))

    @classmethod
    def of_costs(cls, first: int, *costs: int) -> Model:
        return cls.of_weights(first, [0 if c == 255 else T[c % 8] >> (c // 8) for c in costs])


class Coder:
    """The stack of code words."""

    def __init__(self, words: list[int]) -> None:
        self.words = words
        self.state = 0
        assert not words or words[-1] != 0
        for _ in range(min(2, len(words))):
            self.state = self.state << 32 | words.pop()

    def take(self, model: Model, count: int) -> list[int]:
        if len(model.frequencies) == 1:
            return [model.first] * count
        sums = [0, *accumulate(model.frequencies)]
        symbols = []
        for _ in range(count):
            q = self.state % 2**24
            i = next(i for i in range(len(sums)) if q < sums[i + 1])
            self.state = (self.state >> 24) * model.frequencies[i] + q - sums[i]
            if self.state < 2**32 and self.words:
                self.state = self.state << 32 | self.words.pop()
            symbols.append(model.first + i)
        return symbols

    def finish(self) -> None:
        assert self.state == 0 and not self.words


def grid_number(e: int) -> np.float32:
    return np.float32(B[e % 8] * np.float32(2.0 ** (e // 8)))


def levels(bits: int, number_type: str, granularity: str) -> list[float]:
    if granularity == "log":
        positive = [2.0**-k for k in range(2 ** (bits - 1) - 2, -1, -1)]
    elif number_type == "float":
        e_bits, m_bits = MINIFLOATS[bits]
        bias = 2 ** (e_bits - 1) - 1
        patterns = [(e, m) for e in range(2**e_bits) for m in range(2**m_bits)]
        if bits == 8:
            patterns.remove((15, 7))  # not a number
        fraction = 2.0**m_bits
        values = [2.0 ** (e - bias) * (1 + m / fraction) if e else 2.0 ** (1 - bias) * m / fraction for e, m in patterns]
        positive = sorted(v for v in values if v)
    elif granularity == "uniform":
        return [float(i) for i in range(2**bits)]
    else:
        positive = [float(i) for i in range(1, 2 ** (bits - 1))]
    return [-v for v in reversed(positive)] + [0.0] + positive


@dataclass(frozen=True)
class Kernel:
    """codes: one list per row; weight: the slim kernel, float32."""

    manifest: list[Any]
    codes: list[list[int]]
    scales: list[np.float32]
    zero_point: int | None
    weight: np.ndarray


@dataclass(frozen=True)
class File:
    manifest: dict[str, Any]
    masks: list[list[int]]
    kernels: dict[str, Kernel]
    rest: dict[str, np.ndarray]


def product(shape: list[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def read(data: bytes) -> File:
    magic, version, flags, m, r, w = struct.unpack("<8sHHIII", data[:24])
    assert magic == bytes.fromhex("89484952454C430A") and version in (2, 3) and flags == 0
    assert len(data) == 40 + m + r + 4 * w
    assert hashlib.sha256(data[:24] + data[40:]).digest()[:16] == data[24:40]
    manifest = json.loads(zlib.decompress(data[40 : 40 + m]).decode("utf-8"))
    coder = Coder(list(struct.unpack(f"<{w}I", data[40 + m + r :])))
    models = [Model.of_costs(*row) for row in manifest["models"]]

    masks = []
    counts = [(units, kept) for units, kept, _, _ in manifest["couplings"]]
    counts += [(full, kept) for _, full, kept in manifest["rows"]]
    for full, kept in counts:
        masks.append(coder.take(Model.of_weights(0, [full - kept, kept]), full))
        assert sum(masks[-1]) == kept

    exponents = []
    for _, shape, dim, _, _, granularity, _, origin, _ in manifest["kernels"]:
        own = shape[dim] if granularity in ("per_channel", "learned") else 1
        exponents.append([origin + i for i in coder.take(models[manifest["scales"]], own)])

    coded = {}
    for name, shape, kind, *coding in manifest["rest"]:
        if kind == "coded":
            step, origin = coding
            items = product(shape)
            integers = coder.take(models[manifest["values"]], items) if items else []
            values = np.array([origin + i for i in integers], dtype=np.float32) * grid_number(step)
            coded[name] = values.reshape(shape)

    kernels = {}
    for row, own in zip(manifest["kernels"], exponents, strict=True):
        kernels[row[0]] = kernel(row, [grid_number(e) for e in own], coder, models)
    coder.finish()

    at = 40 + m
    rest = {}
    for name, shape, kind, *_ in manifest["rest"]:
        if kind == "coded":
            rest[name] = coded[name]
            continue
        rest[name] = np.frombuffer(data, RAW[kind], product(shape), at).reshape(shape)
        at += rest[name].nbytes
    assert at == 40 + m + r
    return File(manifest, masks, kernels, rest)


def in_contexts(shape: list[int], zero: int, coder: Coder, models: list[Model]) -> list[int]:
    taps, width, filters = product(shape[2:]), shape[-1], shape[0] * shape[1]
    codes = [[0] * taps for _ in range(filters)]
    signs = [[0] * taps for _ in range(filters)]
    for t in range(taps):
        contexts = [
            3 * ((signs[f][t - 1] if t >= 1 else 0) + 1) + (signs[f][t - width] if t >= width else 0) + 1
            for f in range(filters)
        ]
        for context in range(9):
            here = [f for f in range(filters) if contexts[f] == context]
            for f, code in zip(here, coder.take(models[context], len(here)), strict=True):
                codes[f][t] = code
                signs[f][t] = (code > zero) - (code < zero)
    return [code for one in codes for code in one]


def kernel(row: list[Any], scales: list[np.float32], coder: Coder, models: list[Model]) -> Kernel:
    _, shape, dim, bits, number_type, granularity, zero_point, _, model = row
    per_row = product(shape) // shape[dim]
    if isinstance(model, list):
        zero_code = len(levels(bits, number_type, granularity)) // 2 if zero_point is None else zero_point
        flat = in_contexts(shape, zero_code, coder, [models[m] for m in model])
    else:
        flat = coder.take(models[model], product(shape))
    codes = [flat[i : i + per_row] for i in range(0, len(flat), per_row)]
    table = levels(bits, number_type, granularity)
    rows = []
    for i, own in enumerate(codes):
        scale = scales[i] if len(scales) > 1 else scales[0]
        zero = np.float32(0 if zero_point is None else zero_point)
        rows.append([(np.float32(table[c]) - zero) * scale for c in own])
    outside = [n for d, n in enumerate(shape) if d != dim]
    weight = np.moveaxis(np.array(rows, dtype=np.float32).reshape([shape[dim], *outside]), 0, dim)
    return Kernel(row, codes, scales, zero_point, weight)
