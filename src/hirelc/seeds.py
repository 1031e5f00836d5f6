"""One root seed, named streams: every random consumer asks for its own, so that none disturbs another."""

from __future__ import annotations

import hashlib


def stream_seed(root: int, *names: str | int) -> int:
    """A 31-bit seed for the stream called by `names` under the root seed. Independent of PYTHONHASHSEED."""
    text = "/".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
