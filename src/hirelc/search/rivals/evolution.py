"""Evolution: a population on the cheap objectives, bytes and predicted drop (NSGA-II of pymoo)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirelc.config import SearchConfig
from hirelc.errors import RunError
from hirelc.policy import Choice, Goal, Granularity, NumberType
from hirelc.precision import with_precision
from hirelc.search.isolation import isolated
from hirelc.search.problem import Problem, Proposal
from hirelc.search.rivals.base import Choices, LearningRival
from hirelc.seeds import stream_seed

POPULATION = 48
AGENTS = 3  # of an ensemble of the method: each of them sees the whole network so many times a cycle
_NARROW = 0.5  # the population keeps to sizes from this part of the byte target to all of it
_TYPES, _LAYOUTS = tuple(NumberType), tuple(Granularity)

Genomes = NDArray[np.int64]
Judge = Callable[[Genomes], tuple[NDArray[np.float64], NDArray[np.float64]]]


class EvolutionSearch(LearningRival):
    """NSGA-II over genomes of four numbers per kernel, the same that the agents choose.

    Each cycle goes on from the population of the one before, for as many evaluations of a whole network as the
    agents of the method make. It learns from rigorous measurements as the method does: the drop of a genome is what
    a `Surrogate` predicts. The best of the population that is new is proposed.
    """

    ORIGIN = "evolution"

    def __init__(
        self,
        problem: Problem,
        goal: Goal,
        config: SearchConfig,
        seed: int,
        progress: Callable[[str, float], None] = lambda message, fraction: None,
    ) -> None:
        library()
        super().__init__(problem, goal, config, seed)
        self._seed, self._progress = seed, progress
        self._kernels = [kernel for block in problem.blocks for kernel in block.kernels]
        levels = self.bounds.levels
        self._choices_of_genes = np.tile([levels, levels, len(_TYPES), len(_LAYOUTS)], len(self._kernels))
        self._population = self._first()

    def next(self, cycle: int, index: int) -> Proposal | None:
        if index == 0:
            generations = max(1, AGENTS * self.config.low_level_steps // POPULATION)
            with isolated(stream_seed(self._seed, "evolution", cycle)):
                seed = stream_seed(self._seed, "generations", cycle)
                self._population = evolve(
                    self._population, self._choices_of_genes, self._judged, generations, seed, self._report
                )
        objectives, constraints = self._judged(self._population)
        for number in np.lexsort((objectives[:, 1], np.maximum(constraints.max(axis=1), 0))).tolist():
            choices = self.fitted(self._decoded(self._population[number]))
            proposal = self.unseen(choices, self.predicted(choices), surrogate=self.surrogate.record())
            if proposal is not None:
                return proposal
        return None

    def _report(self, part: float) -> None:
        self._progress("generations", part)

    def _first(self) -> Genomes:
        """Every kernel alike at each level, without pruning; the rest is drawn."""
        generator = np.random.default_rng(stream_seed(self._seed, "first"))
        genomes = generator.integers(self._choices_of_genes, size=(POPULATION, len(self._choices_of_genes)))
        learned = [self.bounds.levels - 1, _TYPES.index(NumberType.INT), _LAYOUTS.index(Granularity.LEARNED)]
        for level in range(min(self.bounds.levels, POPULATION // 2)):
            genomes[level] = np.tile([level, *learned], len(self._kernels))
        return genomes

    def _decoded(self, genome: NDArray[np.int64]) -> Choices:
        bounds, rows = self.bounds, iter(genome.reshape(-1, 4).tolist())
        decided = []
        for index, block in enumerate(self.problem.blocks):
            wanted = tuple(
                with_precision(
                    Choice(8, bounds.keeps[k] if kernel.prunable else 1.0, _TYPES[t], _LAYOUTS[g]), bounds.precisions[p]
                )
                for kernel, (p, k, t, g) in zip(block.kernels, rows, strict=False)
            )
            decided.append(self.problem.canonical(index, wanted))
        return tuple(decided)

    def _judged(self, genomes: Genomes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Objectives (bytes, drop) and constraints (0 or below is kept), each (genomes, 2)."""
        decoded = [self._decoded(genome) for genome in genomes]
        payload = [sum(self.problem.block_bytes(b, c) for b, c in enumerate(choices)) for choices in decoded]
        size = (np.array(payload) + self.problem.fixed_bytes) / self.target.bytes
        drops = np.array([self.predicted(choices) for choices in decoded])
        return np.column_stack([size, drops]), np.column_stack([size - 1, _NARROW - size])


def library() -> Any:
    """pymoo.

    :raises RunError: it is not installed
    """
    try:
        import pymoo
    except ImportError as error:
        raise RunError("the strategy evolution needs pymoo, which is not installed: pip install 'hirelc[rivals]'") from error
    return pymoo


def evolve(
    population: Genomes, options: Genomes, judge: Judge, generations: int, seed: int, report: Callable[[float], None]
) -> Genomes:
    """The population after some generations of NSGA-II.

    :param population: (individuals, genes); :param options: how many values each gene has, (genes,)
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as Space
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair

    class Genes(Space):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=len(options), n_obj=2, n_ieq_constr=2, xl=0, xu=options - 1, vtype=int)

        def _evaluate(self, x: Genomes, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"], out["G"] = judge(x.astype(np.int64))

    settings = {"vtype": float, "repair": RoundingRepair()}
    algorithm = NSGA2(
        len(population),
        sampling=population,
        crossover=SBX(prob=0.9, eta=3.0, **settings),
        mutation=PM(eta=3.0, **settings),
        eliminate_duplicates=True,
    )
    algorithm.setup(Genes(), termination=("n_gen", generations + 1), seed=seed, verbose=False)
    while algorithm.has_next():
        algorithm.next()
        report(algorithm.n_gen / (generations + 2))
    return np.array([individual.X for individual in algorithm.pop]).astype(np.int64)
