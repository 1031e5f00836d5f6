"""Models and the coder: exact frequencies, close to the ideal, and any reader gets the same symbols."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import reference_reader as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from hirelc.artifact.entropy import (
    _WEIGHTS,
    ABSENT,
    LARGEST_COST,
    MOST_SYMBOLS,
    TOTAL_BITS,
    Decoder,
    Model,
    costs_of_counts,
    encode,
    mask_model,
    model_of_costs,
)
from hirelc.errors import FormatError

WORDS = [4169086051, 2257946022, 3976768928, 2126610422, 538904646, 40774]
FORMAT = Path(__file__).parents[2] / "docs/format.md"
costs = st.lists(st.integers(0, LARGEST_COST) | st.just(ABSENT), min_size=1, max_size=40).filter(lambda c: set(c) != {ABSENT})


def test_the_table_is_the_documents() -> None:
    line = re.search(r"T = ([\d, ]+)", FORMAT.read_text())
    assert line is not None
    assert [int(weight) for weight in line[1].split(",")] == _WEIGHTS == list(reference.T)


@given(costs, st.integers(-500, 500))
def test_frequencies_are_positive_and_sum_to_a_power(listed: list[int], first: int) -> None:
    model = model_of_costs(first, listed)
    assert (model.frequencies > 0).all()
    assert model.frequencies.sum() == 2**TOTAL_BITS
    assert tuple(model.frequencies) == reference.Model.of_costs(first, *listed).frequencies


def test_the_largest_model_and_the_flattest() -> None:
    for weights in ((1,) * MOST_SYMBOLS, (2**24, *(0,) * (MOST_SYMBOLS - 1)), (2**24,) * MOST_SYMBOLS):
        model = Model(0, weights)
        assert model.frequencies.sum() == 2**24 and (model.frequencies > 0).all()
        symbols = np.array([0, MOST_SYMBOLS - 1, 7], dtype=np.int32)
        decoder = Decoder(encode([(symbols, model)]), 0)
        assert decoder.take(model, 3).tolist() == symbols.tolist()
        decoder.finish()


@given(st.integers(1, 5000), st.data())
def test_masks_of_any_width(full: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, full))
    model = mask_model(full, kept)
    assert tuple(model.frequencies) == reference.Model.of_weights(0, [full - kept, kept]).frequencies
    mask = np.zeros(full, dtype=np.int32)
    mask[:kept] = 1
    decoder = Decoder(encode([(mask, model)]), 0)
    assert decoder.take(model, full).tolist() == mask.tolist()
    decoder.finish()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(costs, st.integers(-300, 300), st.integers(0, 60)), max_size=5), st.integers(0, 999))
def test_streams_come_back_here_and_by_the_reference(parts: list[tuple[list[int], int, int]], seed: int) -> None:
    random = np.random.default_rng(seed)
    models = [model_of_costs(first, listed) for listed, first, _ in parts]
    streams = [
        (m.first + random.integers(m.symbols, size=n)).astype(np.int32) for m, (_, _, n) in zip(models, parts, strict=True)
    ]
    words = encode(zip(streams, models, strict=True))
    ours, theirs = Decoder(words, 0), reference.Coder([int(w) for w in words])
    for stream, model in zip(streams, models, strict=True):
        assert ours.take(model, stream.size).tolist() == stream.tolist()
        plain = reference.Model(model.first, tuple(int(f) for f in model.frequencies))
        assert theirs.take(plain, stream.size) == stream.tolist()
    ours.finish()
    theirs.finish()
    assert len(words) == 0 or words[-1] != 0


@pytest.mark.parametrize("spread", [0.4, 1.0, 3.0, 20.0])
def test_the_code_is_as_short_as_the_entropy_allows(spread: float) -> None:
    """Costs in eighths of a bit lose next to nothing; 32 bits at the end, at most."""
    symbols = np.rint(np.random.default_rng(0).laplace(size=200_000) * spread).astype(np.int32)
    first = int(symbols.min())
    counts = np.bincount(symbols - first)
    shares = counts[counts > 0] / symbols.size
    entropy = float(-(shares * np.log2(shares)).sum()) * symbols.size
    model = model_of_costs(first, costs_of_counts(counts))
    bits = 32 * len(encode([(symbols, model)]))
    assert entropy <= bits <= 1.001 * entropy + 64
    assert float(model.bits[symbols - first].sum()) == pytest.approx(bits, abs=64)


def test_the_words_of_a_stream_never_change() -> None:
    """Exact words: a change of the coder is a change of the format."""
    model = model_of_costs(-1, (12, 8, 16, 255, 40))
    symbols = np.array([-1, 0, 1, 0, 3, -1, 0, 0, 1, 0] * 8, dtype=np.int32)
    words = encode([(symbols, model), (np.array([1, 0, 1], dtype=np.int32), mask_model(3, 2))])
    assert words.tolist() == WORDS


def test_what_a_stream_cannot_be() -> None:
    with pytest.raises(FormatError, match="last code word is 0") as caught:
        Decoder(np.array([5, 0], dtype=np.uint32), 100)
    assert caught.value.offset == 104
    decoder = Decoder(np.array([5], dtype=np.uint32), 100)
    with pytest.raises(FormatError, match="more than the manifest lists"):
        decoder.finish()
