"""python tests/attacks/make_attacks.py: writes the hostile files anew. Each has a digest that fits."""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from artifact.files import Parts, signed  # noqa: E402

PRUNED = (HERE.parent / "golden/pruned.hirelc").read_bytes()
REST = (HERE.parent / "golden/rest.hirelc").read_bytes()
MEGABYTES = 2**20


def attacks() -> dict[str, tuple[bytes, str]]:
    """Name -> file, what its refusal says."""
    parts, rest = Parts.of(PRUNED), Parts.of(REST)
    fields = parts.fields
    many = [[f"t{i}", [2**22], "coded", 0, 0] for i in range(100)]
    text = json.dumps(fields)
    deep = text.replace('"a.weight"', "[" * 900 + "]" * 900, 1)

    def bomb(data: bytes) -> bytes:
        return replace(parts, manifest=zlib.compress(data, 9)).pack()

    def with_kernel(position: int, value: object) -> bytes:
        return parts.edited(lambda f: f["kernels"][0].__setitem__(position, value)).pack()

    def with_taps(*shape: int) -> bytes:
        """One filter, whose taps a reader goes through one by one; none of them costs a bit."""
        kernel = ["a.weight", shape, 0, 4, "int", "uniform", 8, 0, [0] * 9]
        empty: dict[str, object] = {key: [] for key in ("rest", "couplings", "rows", "activations")}
        made = empty | {"writer": "", "kernels": [kernel], "models": [[0, 0]], "scales": 0, "values": None}
        return replace(parts, raw=b"", words=b"").with_fields(made).pack()

    return {
        "ten-gigabyte-kernel": (with_kernel(1, [5, 2 * 10**9]), "cannot hold"),
        "many-tensors": (parts.edited(lambda f: f["rest"].extend(many)).pack(), "cannot hold"),
        "wide-mask": (parts.edited(lambda f: f["couplings"][0].__setitem__(0, 2**39)).pack(), "cannot hold"),
        "raw-without-bytes": (rest.edited(lambda f: f["rest"][6].__setitem__(1, [2**20])).pack(), "the raw section has"),
        "empty-but-wide": (rest.edited(lambda f: f["rest"][5].__setitem__(1, [0, 2**40, 2**40])).pack(), "larger than any"),
        "spaces": (bomb(b" " * 8 * MEGABYTES), "inflates to more"),
        "brackets": (bomb(b"[" * 8 * MEGABYTES), "inflates to more"),
        "deep-within-the-limit": (bomb(b"[" * 100_000), "cannot be read"),
        "deep-name": (parts.with_text(deep).pack(), "where a name belongs"),
        "dimensions": (with_kernel(1, [2**40] * 5_000), "5000 dimensions"),
        "long-number": (parts.with_text(text.replace("[5, 3]", "[" + "9" * 100_000 + "]", 1)).pack(), "cannot be read"),
        "surrogate": (with_kernel(0, "\udcff"), "where a name belongs"),
        "escape-sequence": (with_kernel(0, "\x1b[2J\x1b[31mtrust me"), "where a name belongs"),
        "long-name": (with_kernel(0, "a" * 100_000), "where a name belongs"),
        "twice": (parts.with_text(text[:-1] + ', "kernels": []}').pack(), "names a key twice"),
        "nan": (parts.with_text(text.replace("[5, 3]", "[NaN, 3]", 1)).pack(), "NaN is no JSON"),
        "model-beyond-int32": (parts.edited(lambda f: f["models"][0].__setitem__(0, 2**31 - 1)).pack(), "where a number"),
        "model-of-nothing": (parts.edited(lambda f: f["models"].__setitem__(0, [0, 255, 255])).pack(), "no symbol any weight"),
        "model-nowhere": (with_kernel(8, 2**31), "where a number"),
        "infinite-values": (rest.edited(lambda f: f["rest"][4].__setitem__(4, 2**31)).pack(), "are finite numbers"),
        "many-taps": (with_taps(1, 1, 2**23), "taps together"),
        "many-rows-of-taps": (with_taps(1, 1, 2**22, 2), "taps together"),
        "many-couplings": (parts.edited(lambda f: f.update(couplings=[[1, 1, [], []]] * 50_000)).pack(), "inflates to more"),
        "many-starts": (
            parts.edited(lambda f: f["couplings"][0][2][0].__setitem__(2, [0] * 300_000)).pack(),
            "inflates to more",
        ),
        "no-words": (replace(parts, words=b"").pack(), "mask keeps"),
        "zero-word": (replace(parts, words=parts.words + bytes(4)).pack(), "last code word is 0"),
        "lengths-that-overflow": (signed(PRUNED[:12] + b"\xff" * 12 + PRUNED[24:]), "the header announces"),
        "later-version": (replace(parts, version=4).pack(), "this hirelc reads formats 2 and 3"),
        "other-line-ends": (signed(PRUNED.replace(b"\n", b"\r\n", 1)), "not a .hirelc file"),
        "pickle": (
            b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.",
            "not a .hirelc",
        ),
    }


def main() -> None:
    made = attacks()
    for name, (data, _) in made.items():
        (HERE / f"{name}.hirelc").write_bytes(data)
    (HERE / "refusals.json").write_text(json.dumps({n: message for n, (_, message) in made.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
