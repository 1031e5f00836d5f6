"""New policies near a known one: some kernels decided at random, the rest moved so that every limit holds again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hirelc.policy import Choice
from hirelc.search.bounds import Bounds, random_choices
from hirelc.search.fitting import Choices, Fit, fit_to_bytes
from hirelc.search.problem import Problem
from hirelc.search.swaps import swaps

VARIATIONS = 16  # of each kind
REDRAWN = 3  # kernels at most, in a variation that competes with the vote


class Variations:
    """Draws within limits.

    :param bounds: of the search; :param within: of each block, by its budget
    :param byte_limit: of the whole file
    """

    def __init__(self, problem: Problem, bounds: Bounds, within: Sequence[Bounds], byte_limit: int) -> None:
        self._problem, self._bounds, self._within, self._byte_limit = problem, bounds, within, byte_limit

    def fit(self, choices: Sequence[Sequence[Choice]]) -> Fit:
        """The choices, moved to the limits. What is drawn is within budgets; what one block saves another may spend."""
        return fit_to_bytes(self._problem, choices, self._byte_limit, [self._bounds] * len(self._within))

    def of(self, choices: Sequence[Sequence[Choice]], redrawn: int, generator: np.random.Generator) -> Iterator[Fit]:
        """`VARIATIONS` fits.

        :param redrawn: how many kernels are decided anew
        """
        places = [(block, kernel) for block, decided in enumerate(choices) for kernel in range(len(decided))]
        for _ in range(VARIATIONS):
            varied = [list(decided) for decided in choices]
            for block, kernel in generator.permutation(places)[:redrawn].tolist():
                varied[block][kernel] = random_choices(self._problem.blocks[block], self._within[block], generator)[kernel]
            yield self.fit(varied)

    def around(
        self, voted: Sequence[Choices], best: Sequence[Choices], count: int, generator: np.random.Generator
    ) -> Iterator[tuple[str, tuple[Choices, ...]]]:
        """(origin, choices) of policies that may be better than the vote and the best so far.

        :param count: swaps of the best policy
        """
        allowed = max(self._byte_limit, self._problem.file_bytes(best))
        for swapped in swaps(self._problem, best, allowed, self._bounds, count):
            yield "swap", swapped
        for start in dict.fromkeys((tuple(voted), tuple(best))):
            for redrawn in range(1, REDRAWN + 1):
                for fit in self.of(start, redrawn, generator):
                    if fit.fits:
                        yield "variation", fit.choices
