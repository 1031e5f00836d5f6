"""Which model codes what: sharing never costs more than models of their own, tables never more than none."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hirelc.artifact.entropy import Symbols, costs_of_counts, model_of_costs
from hirelc.artifact.modelling import BITS_PER_COST, BITS_PER_MODEL, Table, share_models, table_of


def price(parts: list[Symbols], tables: list[Table], used: list[int]) -> float:
    """Bits of all parts and of the tables, by the estimate that the choice is made with."""
    models = [model_of_costs(t.first, t.costs) for t in tables]
    coded = sum(float(models[i].bits[p - models[i].first].sum()) for p, i in zip(parts, used, strict=True))
    flat = [len(set(t.costs)) == 1 for t in tables]
    return coded + sum(BITS_PER_MODEL + (0 if f else BITS_PER_COST * len(t.costs)) for t, f in zip(tables, flat, strict=True))


def bell(random: np.random.Generator, size: int, spread: float, middle: int) -> Symbols:
    return np.clip(np.rint(random.normal(middle, spread, size)), 0, 254).astype(np.int32)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 3000), st.floats(0.1, 30), st.integers(0, 254)), min_size=1, max_size=8),
    st.integers(0, 99),
)
def test_sharing_costs_no_more_than_separate_models(sizes: list[tuple[int, float, int]], seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [bell(random, *size) for size in sizes]
    tables, used = share_models(parts)
    assert len(used) == len(parts) and set(used) == set(range(len(tables)))
    alone = [share_models([part])[0][0] for part in parts]
    # the choice is made by counts, which costs in eighths of a bit follow to a fifth of a per cent
    assert price(parts, tables, used) <= price(parts, alone, list(range(len(parts)))) * 1.002
    for part, index in zip(parts, used, strict=True):
        table = tables[index]
        codes = part - table.first
        assert codes.min() >= 0 and codes.max() < len(table.costs)
        assert all(table.costs[c] != 255 for c in np.unique(codes))


def test_alike_share_and_unlike_do_not() -> None:
    random = np.random.default_rng(0)
    same = [bell(random, 2000, 5, 100) for _ in range(6)]
    assert len(share_models(same)[0]) == 1
    unlike = [bell(random, 5000, 3, 40), bell(random, 5000, 30, 128)]
    tables, used = share_models(unlike)
    assert len(tables) == 2 and sorted(used) == [0, 1]


def test_few_symbols_get_a_flat_table() -> None:
    few = np.arange(0, 200, 7, dtype=np.int32)
    assert set(table_of(few).costs) == {0}
    skewed = np.array([3] * 5000 + list(range(8)), dtype=np.int32)
    table = table_of(skewed)
    assert len(set(table.costs)) > 1 and table.costs[3 - table.first] == min(table.costs)
    assert table_of(np.full(100, 9, dtype=np.int32)) == Table(9, (0,))


def test_the_order_of_the_result_follows_the_parts() -> None:
    random = np.random.default_rng(1)
    parts = [bell(random, n, 4, 60) for n in (10, 4000, 300)]
    first, second = share_models(parts), share_models(parts)
    assert first == second
    assert price(parts, *first) == pytest.approx(price(parts, *second))


def test_a_long_tail_gets_costs_by_the_run() -> None:
    random = np.random.default_rng(0)
    tailed = np.rint(random.standard_cauchy(2000) * 20).clip(-500, 500).astype(np.int32)
    table = table_of(tailed)
    models = [model_of_costs(t.first, t.costs) for t in (table, Table(table.first, (0,) * len(table.costs)))]
    smooth, flat = (float(m.bits[tailed - m.first].sum()) for m in models)
    counts = np.bincount(tailed - table.first)
    present = counts[counts > 0]
    entropy = float((present * np.log2(len(tailed) / present)).sum())
    assert smooth < 0.85 * flat and smooth < 1.08 * entropy
    deflated = len(zlib.compress(json.dumps(table.costs).encode(), 9))
    everyone = len(zlib.compress(json.dumps(costs_of_counts(counts)).encode(), 9))
    assert deflated < 0.5 * everyone and 8 * deflated + smooth < min(flat, 8 * everyone + entropy)
