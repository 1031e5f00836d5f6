"""What a reader refuses, one file made for each rule of docs/format.md. Every refusal names the byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files import HEADER, Parts, signed
from refusing import ACTIVATIONS, GOLDEN, PRUNED, REST, Fields, put, refused

from hirelc.artifact.container import read
from hirelc.errors import FormatError

# -- container ---------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed() -> None:
    for data in (PRUNED, REST):
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(FormatError):
                read(bytes(damaged))


def test_every_truncation_is_noticed_also_with_a_digest_that_fits() -> None:
    for length in range(len(PRUNED)):
        with pytest.raises(FormatError):
            read(PRUNED[:length])
        if length >= HEADER:
            refused(signed(PRUNED[:length]), "announces")


def test_trailing_bytes() -> None:
    for tail in (b"\0", b"\0\0\0\0", PRUNED):
        assert refused(signed(PRUNED + tail), "the header announces").offset == 12


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nothing\.hirelc: cannot be read"):
        read(tmp_path / "nothing.hirelc")
    with pytest.raises(FormatError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "empty.hirelc").write_bytes(b"")
    with pytest.raises(FormatError, match=r"empty\.hirelc: not a \.hirelc file"):
        read(tmp_path / "empty.hirelc")


def test_header() -> None:
    parts = Parts.of(PRUNED)
    assert refused(PRUNED[:39], "ends within its header").offset == 39
    assert refused(replace(parts, magic=b"\x89HIRELC\r").pack(), "not a .hirelc file").offset == 0
    assert refused(replace(parts, version=1).pack(), "format 1; this hirelc reads formats 2 and 3").offset == 8
    assert refused(replace(parts, version=4).pack(), "format 4; this hirelc reads formats 2 and 3").offset == 8
    assert refused(replace(parts, flags=1).pack(), "flags 0x1").offset == 10
    assert refused(PRUNED[:24] + bytes(16) + PRUNED[40:], "damaged").offset == 24
    for at in (12, 16, 20):
        longer = PRUNED[:at] + b"\xff\xff\xff\xff" + PRUNED[at + 4 :]
        assert refused(signed(longer), "the header announces").offset == 12


# -- manifest ----------------------------------------------------------------------------------------------


def text_of(fields: Fields) -> str:
    return json.dumps(fields)


def utf16(fields: Fields) -> bytes:
    return text_of(fields).encode("utf-16")


def doubled(fields: Fields) -> str:
    return text_of(fields)[:-1] + ', "writer": "me"}'


TEXTS: dict[str, tuple[Callable[[Fields], str | bytes], str]] = {
    "no JSON": (lambda f: "garbage", "cannot be read"),
    "nothing": (lambda f: "", "cannot be read"),
    "no object": (lambda f: "[1, 2]", "exactly the keys"),
    "two values": (lambda f: text_of(f) + "{}", "cannot be read"),
    "deep list": (lambda f: "[" * 20_000, "cannot be read"),
    "deep object": (lambda f: '{"a":' * 20_000, "cannot be read"),
    "not UTF-8": (lambda f: text_of(f).encode().replace(b"0.1", b"\xff\xfe"), "cannot be read"),
    "UTF-16": (utf16, "cannot be read"),
    "byte order mark": (lambda f: b"\xef\xbb\xbf" + text_of(f).encode(), "cannot be read"),
    "a key twice": (doubled, "names a key twice"),
    "NaN": (lambda f: text_of(f).replace('"scales": 2', '"scales": NaN', 1), "NaN is no JSON"),
    "Infinity": (lambda f: text_of(f).replace('"scales": 2', '"scales": -Infinity', 1), "-Infinity is no JSON"),
    "digits": (lambda f: text_of(f).replace('"scales": 2', '"scales": ' + "9" * 5000, 1), "cannot be read"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    parts = Parts.of(PRUNED)
    change, message = TEXTS[name]
    fields = parts.fields | {"writer": "0.1", "scales": 2}
    assert refused(parts.with_text(change(fields)).pack(), message).offset == HEADER


def test_streams() -> None:
    parts = Parts.of(PRUNED)
    refused(replace(parts, manifest=b"garbage").pack(), "cannot be read")
    refused(replace(parts, manifest=b"").pack(), "cut short")
    refused(replace(parts, manifest=parts.manifest[:-3]).pack(), "cut short")
    error = refused(replace(parts, manifest=parts.manifest + b"more").pack(), "something follows")
    assert error.offset == HEADER + len(parts.manifest)
    wrong_sum = parts.manifest[:-1] + bytes([parts.manifest[-1] ^ 1])
    refused(replace(parts, manifest=wrong_sum).pack(), "cannot be read")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


KERNEL, REST_ROW, COUPLING, MEMBER = ("kernels", 0), ("rest", 0), ("couplings", 0), ("couplings", 1, 2, 0)
FIELDS: list[tuple[Callable[[Fields], Any], str]] = [
    (lambda f: f.pop("kernels"), "exactly the keys"),
    (lambda f: f.update(more=1), "exactly the keys"),
    (put("writer", 7), "where a name belongs"),
    (put("kernels", {}), "where a list belongs"),
    (put("kernels", None), "where a list belongs"),
    (put("rest", "coded"), "where a list belongs"),
    (put("kernels", 0, "a row of a kernel"), "where a list belongs"),
    (put("kernels", 0, []), "not enough values"),
    (lambda f: f["kernels"][0].append(1), "too many values"),
    (lambda f: f["kernels"].append(f["kernels"][0]), "names a tensor twice"),
    (put("rest", 0, 0, "a.weight"), "names a tensor twice"),
    (put(*KERNEL, 0, 7), "where a name belongs"),
    (put(*KERNEL, 0, "a\nb"), "where a name belongs"),
    (put(*KERNEL, 0, "a" * 1001), "where a name belongs"),
    (put(*KERNEL, 0, "a\ud800"), "where a name belongs"),
    (put(*KERNEL, 0, nested(900)), "where a name belongs"),
    (put(*KERNEL, 4, nested(900)), "where a name belongs"),
    (put(*KERNEL, 1, [-1, 3]), "where a number"),
    (put(*KERNEL, 1, [0, 2]), "where a number"),
    (put(*KERNEL, 1, [5.0, 3]), "where a number"),
    (put(*KERNEL, 1, [True, 3]), "where a number"),
    (put(*KERNEL, 1, ["5", 3]), "where a number"),
    (put(*KERNEL, 1, [nested(900), 3]), "where a number"),
    (put(*KERNEL, 1, [2**41]), "where a number"),
    (put(*KERNEL, 1, [2**39, 2**39]), "larger than any"),
    (put(*KERNEL, 1, [1] * 17), "17 dimensions"),
    (put(*KERNEL, 1, [2**40] * 5_000), "5000 dimensions"),
    (put(*KERNEL, 1, [2**20, 2**10]), "cannot hold"),
    (put(*KERNEL, 2, 2), "no dimension 2"),
    (put(*KERNEL, 2, -1), "where a number"),
    (put(*KERNEL, 3, 9), "where a number from 2 to 8"),
    (put(*KERNEL, 3, 1), "where a number from 2 to 8"),
    (put(*KERNEL, 3, None), "where a number from 2 to 8"),
    (put(*KERNEL, 4, "complex"), "breaks its own rules"),
    (put(*KERNEL, 5, "huge"), "breaks its own rules"),
    (put(*KERNEL, 6, 3), "no zero point"),
    (put("kernels", 0, 8, [0] * 8), "contexts that it cannot have"),
    (put("kernels", 0, 8, []), "contexts that it cannot have"),
    (put("kernels", 0, 8, [0] * 8 + [10**6]), "where a number"),
    (put("kernels", 1, 6, None), "where a number from 0 to 15"),
    (put("kernels", 1, 6, 16), "where a number from 0 to 15"),
    (put(*KERNEL, 7, 321), "where a number from -320 to 320"),
    (put(*KERNEL, 8, 99), "where a number"),
    (put(*KERNEL, 8, -1), "where a number"),
    (put(*REST_ROW, 2, "float64"), "unknown kind"),
    (put(*REST_ROW, 2, ["coded"]), "unknown kind"),
    (put("rest", 0, ["a.bias", [5], "float16", 1]), "unknown kind"),
    (put("rest", 0, ["a.bias", [5], "coded", 1]), "not enough values"),
    (put(*REST_ROW, 3, 1001), "where a number from -1000"),
    (put(*REST_ROW, 4, 2**31 + 1), "where a number"),
    (put(*REST_ROW, 1, [0, 2**40, 2**40]), "larger than any"),
    (put(*COUPLING, 0, 0), "where a number"),
    (put(*COUPLING, 0, 2**38), "cannot hold"),
    (put(*COUPLING, 1, 99), "cannot keep 99"),
    (put(*COUPLING, 1, 0), "where a number"),
    (put("couplings", 0, "abcd"), "where a list belongs"),
    (put(*MEMBER, 0, 10**6), "where a number"),
    (put(*MEMBER, 0, "a.weight"), "stores and has a number"),
    (put(*MEMBER, 1, -1), "where a number"),
    (put(*MEMBER, 2, 8), "where a list belongs"),
    (put(*MEMBER, 3, 0), "where a number"),
    (put("couplings", 1, 3, 0, 2, 0), "where a number"),
    (put("couplings", 1, 3, 0, 0, None), "where a name belongs"),
    (put("rows", 0, 0, 10**6), "where a number"),
    (put("rows", 0, 2, 1), "do not fit its shape"),
    (put("rows", 0, 1, 3), "do not fit its shape"),
    (put("rows", 0, 1, 2**39), "cannot hold"),
    (lambda f: f["rows"].append(f["rows"][0]), "rows twice"),
    (put("models", 0, []), "not enough values"),
    (put("models", 0, [0]), "0 symbols"),
    (put("models", 0, [0] * 4098), "4097 symbols"),
    (put("models", 0, [0, 255, 255]), "no symbol any weight"),
    (put("models", 0, [0, 192, 0]), "the cost 192"),
    (put("models", 0, [0, 256]), "where a number"),
    (put("models", 0, [0, -1]), "where a number"),
    (put("models", 0, [0, 255.0]), "where a number"),
    (put("models", 0, [2**31, 0, 0]), "where a number"),
    (put("models", 0, [2**31 - 2, 0, 0, 0]), "where a number"),
    (put("models", 0, [-(2**31) - 1, 0, 0]), "where a number"),
    (put("models", 0, [None, 0, 0]), "where a number"),
    (put("models", {}), "where a list belongs"),
    (put("models", []), "where a number from 0 to -1"),
    (put("scales", None), "where a number"),
    (put("scales", 99), "where a number"),
    (put("values", None), "where a number"),
    (put("values", "0"), "where a number"),
]


@pytest.mark.parametrize("at", range(len(FIELDS)))
def test_fields(at: int) -> None:
    change, message = FIELDS[at]
    assert refused(Parts.of(PRUNED).edited(change).pack(), message).offset == HEADER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("activations", 0, 1, "middle"), "no side"),
        (put("activations", 0, 1, nested(900)), "where a name belongs"),
        (put("activations", 0, 0, 3), "where a name belongs"),
        (put("activations", 0, 2, 0), "no scale"),
        (put("activations", 0, 2, -1.0), "no scale"),
        (put("activations", 0, 2, "1"), "no scale"),
        (put("activations", 0, 2, True), "no scale"),
        (put("activations", 0, 2, 10**400), "no scale"),
        (put("activations", 0, 2, 0.1), "no positive float32"),
        (put("activations", 0, 3, 256), "where a number from 0 to 255"),
        (lambda f: f["activations"].append(f["activations"][0]), "an activation twice"),
        (put("values", 0), "where null belongs"),
    ],
)
def test_activations(change: Callable[[Fields], Any], message: str) -> None:
    assert refused(Parts.of(ACTIVATIONS).edited(change).pack(), message).offset == HEADER


# -- raw section and code words ----------------------------------------------------------------------------


def test_raw_section() -> None:
    parts = Parts.of(REST)
    for raw in (parts.raw[:-1], parts.raw + b"\0", b""):
        assert refused(replace(parts, raw=raw).pack(), "the raw section has").offset == parts.raw_at
    shorter = parts.edited(lambda f: f["rest"][6].__setitem__(1, [2, 1]))
    assert refused(shorter.pack(), "the raw section has").offset == shorter.raw_at


def test_code_words() -> None:
    parts = Parts.of(PRUNED)
    words = parts.words
    assert refused(replace(parts, words=words + bytes(4)).pack(), "last code word is 0").offset == parts.words_at + len(words)
    refused(replace(parts, words=words + b"\1\0\0\0").pack(), "mask keeps|more than|beyond")
    refused(replace(parts, words=words[4:]).pack(), "mask keeps|more than|beyond")
    refused(replace(parts, words=words[:-4]).pack(), "last code word|mask keeps|more than|beyond")
    refused(replace(parts, words=b"").pack(), "mask keeps")
    constant = Parts.of((GOLDEN / "constant.hirelc").read_bytes())
    assert constant.words == b"" and len(constant.fields["models"]) >= 1
    assert refused(replace(constant, words=b"\1\0\0\0").pack(), "hold more").offset == constant.words_at


def test_a_state_that_is_left() -> None:
    """One symbol too few is listed: what is left of the stream is noticed."""
    fewer = Parts.of(REST).edited(lambda f: f["rest"][0].__setitem__(1, [59]))
    assert refused(fewer.pack(), "hold more").offset == fewer.words_at


def test_masks_scales_and_codes() -> None:
    parts = Parts.of(PRUNED)
    other = parts.edited(lambda f: f["couplings"][0].__setitem__(1, 4))
    assert refused(other.pack(), "a mask keeps").offset == other.words_at
    far = parts.edited(lambda f: [k.__setitem__(7, 319) for k in f["kernels"]])
    assert refused(far.pack(), r"a\.weight: a scale beyond").offset == far.words_at
    beyond = parts.edited(
        lambda f: [m.__setitem__(0, m[0] + 250) for i, m in enumerate(f["models"]) if i not in (f["scales"], f["values"])]
    )
    assert refused(beyond.pack(), "a code beyond the levels").offset == beyond.words_at
    below = parts.edited(
        lambda f: [m.__setitem__(0, m[0] - 1) for i, m in enumerate(f["models"]) if i not in (f["scales"], f["values"])]
    )
    assert refused(below.pack(), "a code beyond the levels").offset == below.words_at


def test_values_that_are_not_finite() -> None:
    for origin in (2**31, -(2**31), 2**10):
        endless = Parts.of(REST).edited(lambda f, origin=origin: f["rest"][4].__setitem__(4, origin))
        assert refused(endless.pack(), "huge: not all of its values are finite").offset == endless.words_at
    whole = Parts.of(REST).edited(lambda f: f["rest"][4].__setitem__(4, 4))  # 4 * 2^125: still finite
    assert np.isfinite(read(whole.pack()).value(read(REST).layout.rest[4]).numpy()).all()
