"""Steps from the best policy so far."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hirelc.config import SearchConfig
from hirelc.policy import Goal
from hirelc.search.bounds import Bounds, random_choices
from hirelc.search.fitting import rate_curve
from hirelc.search.hierarchy import HierarchicalSearch
from hirelc.search.steps import STEP, step
from hirelc.search.warm import WarmStart
from search.fake import FakeProblem

BOUNDS = Bounds.of(SearchConfig())


def scene(blocks: int = 8) -> tuple[FakeProblem, list, tuple, list]:
    problem = FakeProblem(blocks)
    curves = [rate_curve(problem, block, BOUNDS) for block in range(blocks)]
    best = WarmStart(problem, BOUNDS, True).at(problem.original_bytes // 20)
    generator = np.random.default_rng(0)
    wish = [problem.canonical(b, random_choices(info, BOUNDS, generator)) for b, info in enumerate(problem.blocks)]
    return problem, curves, best, wish


def test_a_step_decides_few_kernels_anew_and_leaves_the_others() -> None:
    problem, curves, best, wish = scene()
    stepped, taken = step(problem, curves, best, wish)
    changed = [block for block, (now, then) in enumerate(zip(best, stepped, strict=True)) if now != then]
    assert tuple(changed) == taken and 0 < len(taken) < 8
    assert sum(a != b for now, then in zip(best, stepped, strict=True) for a, b in zip(now, then, strict=True)) <= max(
        STEP * sum(map(len, best)), max(map(len, best))
    )
    assert all(stepped[block] == wish[block] for block in taken)


def test_the_block_that_promises_most_comes_first() -> None:
    """One block wishes for what distorts less at no more bytes; the others wish for random choices."""
    problem, curves, best, wish = scene()
    for block in (2, 5):
        spoiled = [list(decided) for decided in best]
        spoiled[block] = [replace(choice, keep_ratio=0.5, bits=2, coarse=0) for choice in best[block]]
        start = [problem.canonical(b, tuple(decided)) for b, decided in enumerate(spoiled)]
        wished = [best[b] if b == block else decided for b, decided in enumerate(wish)]
        assert block in step(problem, curves, start, wished)[1]


def test_agreement_is_no_step() -> None:
    problem, curves, best, _ = scene()
    assert step(problem, curves, best, best) == (tuple(map(tuple, best)), ())


def test_a_vote_is_near_the_warm_start() -> None:
    problem = FakeProblem(8)
    config = SearchConfig(cycles=2, trials=1, low_level_steps=64, high_level_steps=64)
    first, vote = HierarchicalSearch(problem, Goal(ratio=20), config, 0).propose(0)
    assert vote.record is not None and 1 <= len(vote.record["blocks_taken"]) <= 4
    same = sum(now == then for now, then in zip(first.choices, vote.choices, strict=True))
    assert same >= 3
    _, far = HierarchicalSearch(problem, Goal(ratio=20), replace(config, without="warm-start"), 0).propose(0)
    assert far.record is not None and len(far.record["blocks_taken"]) == 8
