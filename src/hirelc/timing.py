"""A time budget: said in words, planned from measured speeds, watched while the run goes on."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hirelc.errors import RunError

OVERHEAD = 0.35  # of the time left, at most, for what a search does besides training, where fewer cycles make it less
SPARE = 0.05  # of the time left that is not planned: speeds vary
USEFUL = 20  # batches that each full measurement trains on, at least, where fewer cycles make it more
ADVISED = 1.1  # times what is needed: what a run that was given too little time is told to ask for
KEPT = 0.6  # of the planned final fine-tune: measurements that would leave it less are not started

_TIME = re.compile(r"(?=.)(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")


def parse_time(text: str) -> float:
    """Seconds of "20m", "90s", "1h30m" or "1.5h".

    >>> parse_time("1h30m")
    5400.0

    :raises RunError: the text says no time
    """
    found = _TIME.fullmatch(text.strip().lower().replace(" ", ""))
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise RunError(f"the time {text!r}: give hours, minutes or seconds with their letters, as in 20m, 90s or 1h30m")
    return total


def time_words(seconds: float) -> str:
    """As it would be given to `--time`: 1h30m, 20m, 90s."""
    whole = max(1, round(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if number)


def _rounded_up(seconds: float) -> str:
    step = 10 if seconds < 120 else 60
    return time_words(step * math.ceil(seconds / step))


@dataclass(frozen=True)
class TimeBudget:
    """So many seconds from the moment on in which it is made.

    :param clock: seconds from any origin; injected by tests
    :param before: seconds that were spent earlier, by the part of a run that is resumed
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    before: float = 0.0
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise RunError(f"a time budget must be above 0 seconds, not {self.seconds:g}")
        object.__setattr__(self, "begun", self.clock())

    @property
    def spent(self) -> float:
        return self.before + self.clock() - self.begun

    @property
    def left(self) -> float:
        """Seconds; below 0 when the time is over."""
        return self.seconds - self.spent


@dataclass(frozen=True)
class Speeds:
    """What things take, in seconds, as measured before the search.

    :param image: of training the compressed network on one sample
    :param control_image: of training the control on one; 0 without a control
    :param measurement: of measuring one candidate, its training aside
    :param ending: of all that follows the search, training aside
    :param agent_step: of one environment step of every agent
    """

    image: float
    control_image: float
    measurement: float
    ending: float
    agent_step: float

    @property
    def final_image(self) -> float:
        """What an image of the final fine-tune takes: the control sees it as well."""
        return self.image + self.control_image


@dataclass(frozen=True)
class Search:
    """One way to search.

    :param agent_steps: of each agent and cycle
    :param measurements: of candidates, all fidelities
    :param trainings: in units of one measurement's full training
    """

    cycles: int
    trials: int
    agent_steps: int
    measurements: int
    trainings: float

    def overhead(self, speeds: Speeds) -> float:
        """Seconds besides training."""
        return self.cycles * self.agent_steps * speeds.agent_step + self.measurements * speeds.measurement


@dataclass(frozen=True)
class TimePlan:
    """What a run makes of its time.

    :param images: training samples of search and final fine-tune together
    :param search_seconds: expected; :param final_seconds: expected, with the control and all that follows
    """

    seconds: float
    spent: float
    search: Search
    images: int
    search_seconds: float
    final_seconds: float
    speeds: Speeds

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TimePlan:
        """A plan as the journal holds it."""
        known = {each.name: data[each.name] for each in fields(cls)}
        return cls(**{**known, "search": Search(**data["search"]), "speeds": Speeds(**data["speeds"])})


def plan_time(budget: TimeBudget, speeds: Speeds, options: Sequence[Search], share: float, batch: int, fixed: int) -> TimePlan:
    """The first way to search that leaves enough time to train in, and the images that this time is enough for.

    :param options: from the one that is wanted to the least
    :param share: of the images that the search may see
    :param batch: samples; each measurement trains on one batch at least
    :param fixed: samples that are seen whatever is searched
    :raises RunError: even the last option does not fit
    """
    spent = budget.spent
    left = (1 - SPARE) * (budget.seconds - spent)
    per_image = share * speeds.image + (1 - share) * speeds.final_image

    def images_of(option: Search) -> int:
        return int((left - option.overhead(speeds) - speeds.ending) / per_image)

    def least(option: Search, batches: int) -> int:
        return int((batch * batches * option.trainings + fixed) / share) + 1

    def good(option: Search) -> bool:
        return option.overhead(speeds) <= OVERHEAD * left and images_of(option) >= least(option, USEFUL)

    option = next((option for option in options if good(option)), options[-1])
    images = images_of(option)
    if images < least(option, 1):
        needed = spent + (option.overhead(speeds) + speeds.ending + least(option, 1) * per_image) / (1 - SPARE)
        raise RunError(
            f"{time_words(budget.seconds)} is too short: {spent:.0f} s are spent on looking at the network, and the least "
            f"search and fine-tune need {needed - spent:.0f} s more: give at least --time {_rounded_up(ADVISED * needed)}"
        )
    training = share * images * speeds.image
    final = (1 - share) * images * speeds.final_image + speeds.ending
    return TimePlan(budget.seconds, spent, option, images, option.overhead(speeds) + training, final, speeds)


@dataclass
class Pace:
    """Watches the time while a run searches: what is measured corrects what was planned.

    :ivar ratio: seconds that training took / seconds that were planned for it
    """

    budget: TimeBudget
    plan: TimePlan
    ratio: float = 1.0
    _planned: float = 0.0
    _taken: float = 0.0

    def observe(self, images: int, seconds: float) -> None:
        """A measurement that took so long, its training included."""
        self._planned += self._expected(images)
        self._taken += seconds
        self.ratio = self._taken / self._planned

    def _expected(self, images: int) -> float:
        return self.plan.speeds.measurement + images * self.plan.speeds.image

    def fits(self, images: int) -> bool:
        """Whether a measurement with so much training leaves the final fine-tune most of what was planned for it."""
        return self.budget.left - self.ratio * self._expected(images) >= KEPT * self.ratio * self.plan.final_seconds

    def final_images(self, batch: int) -> int:
        """Training samples that the final fine-tune, and the control, have the time for; at least a batch."""
        speeds = self.plan.speeds
        left = (1 - SPARE) * self.budget.left - self.ratio * speeds.ending
        return max(1, int(left / (self.ratio * speeds.final_image)) // batch) * batch
