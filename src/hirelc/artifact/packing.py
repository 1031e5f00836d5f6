"""Codes of b bits each, the most significant bit first, no gaps; the last byte is filled with zeros."""

from __future__ import annotations

import numpy as np


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes below 2**bits -> ceil(n * bits / 8) bytes."""
    return np.packbits(np.unpackbits(codes[:, None], axis=1)[:, 8 - bits :])


def unpack_codes(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack_codes`: uint8, shape (count,)."""
    wide = np.zeros((count, 8), dtype=np.uint8)
    wide[:, 8 - bits :] = np.unpackbits(packed)[: count * bits].reshape(count, bits)
    return np.packbits(wide, axis=1)[:, 0]
