"""What an integer program chooses from: for each set of kernels whose bytes depend on each other, channels and formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hirelc.policy import Choice, Granularity, NumberType
from hirelc.precision import RUNGS, with_precision
from hirelc.search.bounds import Bounds, alike
from hirelc.search.channels import keep_groups, with_keep
from hirelc.search.problem import Problem

MOST_KEEPS = 36  # combinations of keep ratios of one set of kernels
_PROBE = 0.5

Kernels = tuple[Choice, ...]
Group = tuple[int, ...]


@dataclass(frozen=True)
class Option:
    """A kernel's format, and what it adds to the block that has its best format everywhere.

    :param size_bytes: below 0 where it saves; :param distortion: see `Problem.block_distortion`
    """

    choice: Choice
    size_bytes: int
    distortion: float


@dataclass(frozen=True)
class Course:
    """One way to keep channels in a set of kernels, and the formats that its kernels may then have.

    :param keeps: (group of kernels, keep_ratio)
    :param size_bytes, distortion, macs, latency_ms: what these alone add to the block
    :param options: per kernel of the set
    """

    keeps: tuple[tuple[Group, float], ...]
    size_bytes: int
    distortion: float
    macs: int
    latency_ms: float
    options: tuple[tuple[Option, ...], ...]


@dataclass(frozen=True)
class Table:
    """A set of kernels of one block whose bytes depend on the same keep ratios: exactly one course is taken.

    :param kernels: indices in the block
    """

    block: int
    kernels: Group
    courses: tuple[Course, ...]


@dataclass(frozen=True)
class Points:
    """What a table can come to: the points that no other beats in both bytes and distortion, smallest first.

    :param size_bytes, distortion: (points,), as differences to the table's best formats with all channels
    :param picks: (points, 1 + kernels): course, and an option for each kernel
    """

    size_bytes: NDArray[np.int64]
    distortion: NDArray[np.float64]
    picks: NDArray[np.int64]

    def undominated(self) -> Points:
        order = np.lexsort((self.distortion, self.size_bytes))
        distortion = self.distortion[order]
        before = np.concatenate([[np.inf], np.minimum.accumulate(distortion)[:-1]])
        kept = order[distortion < before]
        return Points(self.size_bytes[kept], self.distortion[kept], self.picks[kept])


def points(table: Table, most: float, by_course: bool) -> Points:
    """All courses and all combinations of formats, without those that others beat.

    :param most: a distortion; points beyond it are left out
    :param by_course: only points of the same course beat each other: where more is limited than bytes, courses differ in that
    """
    found = [_points_of(index, course, most) for index, course in enumerate(table.courses)]
    columns = ([getattr(part, name) for part in found] for name in ("size_bytes", "distortion", "picks"))
    together = Points(*(np.concatenate(column) for column in columns))
    return together if by_course else together.undominated()


def _points_of(index: int, course: Course, most: float) -> Points:
    total = Points(np.array([course.size_bytes]), np.array([course.distortion]), np.array([[index]]))
    for options in course.options:
        size = np.array([option.size_bytes for option in options])
        error = np.array([option.distortion for option in options])
        number = np.repeat(np.arange(len(options)), len(total.size_bytes))[:, None]
        picks = np.concatenate([np.tile(total.picks, (len(options), 1)), number], axis=1)
        sums = Points((size[:, None] + total.size_bytes).ravel(), (error[:, None] + total.distortion).ravel(), picks)
        within = sums.distortion <= most
        total = Points(sums.size_bytes[within], sums.distortion[within], sums.picks[within]).undominated()
    return total


@dataclass(frozen=True)
class Menu:
    """All sets of all blocks; bytes, MACs and latency of the network with its best formats and all channels."""

    tables: tuple[Table, ...]
    size_bytes: int
    macs: int
    latency_ms: float | None


def menu(problem: Problem, bounds: Bounds) -> Menu:
    """Bytes and distortion of everything that may be chosen.

    A kernel's formats are those of all number types, granularities and rungs that no other beats in both bytes and
    distortion while all channels are kept. Keep ratios are the search's levels, or so many of them that a set of
    kernels has at most `MOST_KEEPS` combinations.
    """
    tables: list[Table] = []
    size = problem.fixed_bytes
    best = []
    for block in range(len(problem.blocks)):
        counter = _Counter(problem, block, bounds)
        size += counter.size
        best.append(counter.best)
        tables += [counter.table(kernels, groups) for kernels, groups in counter.sets()]
    return Menu(tuple(tables), size, problem.macs(best), problem.latency_ms(best))


class _Counter:
    """Counts one block's bytes and distortion in differences to its best formats."""

    def __init__(self, problem: Problem, block: int, bounds: Bounds) -> None:
        self.problem, self.block, self.bounds = problem, block, bounds
        self.best = problem.canonical(block, alike(problem.blocks[block], bounds.highest))
        self.size, self.error = self._count(self.best)
        self.formats = [self._undominated(kernel) for kernel in range(len(self.best))]

    def _count(self, choices: Kernels) -> tuple[int, float]:
        decided = self.problem.canonical(self.block, choices)
        return self.problem.block_bytes(self.block, decided), self.problem.block_distortion(self.block, decided)

    def _work(self, choices: Kernels) -> tuple[int, float]:
        """MACs and milliseconds: they follow from the channels, not from the formats."""
        decided = self.problem.canonical(self.block, choices)
        return self.problem.block_macs(self.block, decided), self.problem.block_latency(self.block, decided)

    def _with(self, choices: Kernels, kernel: int, choice: Choice) -> Kernels:
        own = replace(choice, keep_ratio=choices[kernel].keep_ratio)
        return (*choices[:kernel], own, *choices[kernel + 1 :])

    def _undominated(self, kernel: int) -> list[Choice]:
        candidates: dict[Choice, tuple[int, float]] = {}
        for number_type, granularity, rung in product(NumberType, Granularity, range(RUNGS)):
            if self.bounds.lowest <= rung <= self.bounds.highest:
                choice = with_precision(Choice(number_type=number_type, granularity=granularity), rung)
                candidates[choice] = self._count(self._with(self.best, kernel, choice))
        kept: list[Choice] = []
        least = np.inf
        for choice, (_, distortion) in sorted(candidates.items(), key=lambda item: item[1]):
            if distortion < least:
                kept.append(choice)
                least = distortion
        return kept

    def sets(self) -> list[tuple[Group, tuple[Group, ...]]]:
        """(kernels, groups of kernels that share a keep_ratio), so that no two sets touch each other's bytes."""
        parts = [(set(group) | self._slimmed_by(group), [group]) for group in keep_groups(self.problem.blocks[self.block])]
        parts += [({kernel}, []) for kernel in range(len(self.best))]
        merged: list[tuple[set[int], list[Group]]] = []
        for kernels, groups in parts:
            touching = [part for part in merged if part[0] & kernels]
            merged = [part for part in merged if not part[0] & kernels]
            together = kernels.union(*(part[0] for part in touching))
            merged.append((together, [*(g for part in touching for g in part[1]), *groups]))
        return sorted((tuple(sorted(kernels)), tuple(groups)) for kernels, groups in merged)

    def _slimmed_by(self, group: Group) -> set[int]:
        """Kernels whose own bytes change when a group loses channels."""
        slim = with_keep(self.best, group, _PROBE)
        return {kernel for kernel in range(len(self.best)) if self._range(self.best, kernel) != self._range(slim, kernel)}

    def _range(self, choices: Kernels, kernel: int) -> int:
        """What the kernel's smallest format saves: it follows from how many of its weights are left."""
        return self._count(choices)[0] - self._count(self._with(choices, kernel, self.formats[kernel][0]))[0]

    def table(self, kernels: Group, groups: tuple[Group, ...]) -> Table:
        courses: dict[Kernels, Course] = {}
        for keeps in _combinations(groups, self.bounds.keeps):
            slim = self.best
            for group, keep in keeps:
                slim = with_keep(slim, group, keep)
            courses.setdefault(self.problem.canonical(self.block, slim), self._course(slim, kernels, keeps))
        return Table(self.block, kernels, tuple(courses.values()))

    def _course(self, slim: Kernels, kernels: Group, keeps: tuple[tuple[Group, float], ...]) -> Course:
        size, error = self._count(slim)
        macs, latency_ms = self._work(slim)
        options = []
        for kernel in kernels:
            counted = [(choice, *self._count(self._with(slim, kernel, choice))) for choice in self.formats[kernel]]
            options.append(tuple(Option(choice, after - size, lost - error) for choice, after, lost in counted))
        all_macs, all_latency = self._work(self.best)
        added = (size - self.size, error - self.error, macs - all_macs, latency_ms - all_latency)
        return Course(keeps, *added, tuple(options))


def _combinations(groups: Sequence[Group], keeps: Sequence[float]) -> list[tuple[tuple[Group, float], ...]]:
    """Keep ratios for every group: a grid where it is small enough, else the same for all."""
    levels = min(len(keeps), int(MOST_KEEPS ** (1 / max(len(groups), 1)) + 1e-9))
    if levels < 2:
        return [tuple((group, keep) for group in groups) for keep in keeps]
    chosen = sorted({keeps[round(index)] for index in np.linspace(0, len(keeps) - 1, levels)})
    return [tuple(zip(groups, combination, strict=True)) for combination in product(chosen, repeat=len(groups))]
