from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hirelc.artifact.packing import pack_codes, unpack_codes


@given(bits=st.integers(2, 8), data=st.data())
def test_codes_come_back_from_no_more_bits_than_they_have(bits: int, data: st.DataObject) -> None:
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=70)), dtype=np.uint8)
    packed = pack_codes(codes, bits)
    assert packed.dtype == np.uint8
    assert len(packed) == -(-len(codes) * bits // 8)
    assert np.array_equal(unpack_codes(packed, bits, len(codes)), codes)


@pytest.mark.parametrize(
    ("bits", "codes", "expected"),
    [
        (2, [1, 2, 3, 0, 1], [0b01101100, 0b01000000]),
        (3, [0b101, 0b010, 0b111], [0b10101011, 0b10000000]),
        (8, [255, 7], [255, 7]),
    ],
)
def test_exact_bytes(bits: int, codes: list[int], expected: list[int]) -> None:
    assert pack_codes(np.array(codes, dtype=np.uint8), bits).tolist() == expected
