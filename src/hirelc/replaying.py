"""A resumed run makes its way again from the start: what is dear was measured before and is recalled.

Baseline and sensitivities are read, agents train again (the same seed leads them to the same proposals), and each
measurement that the journal holds is taken from it and from the candidate's files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hirelc.candidates import Bench, Candidate
from hirelc.checkpoints import load_candidate
from hirelc.errors import RunError
from hirelc.policy import Measurement, Policy
from hirelc.run import Run
from hirelc.store import environment

Measured = tuple[Measurement, Candidate | None]


class Recorded:
    """The measurements that are in the journal, in their order. A new run has none."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.events = [event for event in run.directory.events if event["event"] == "measurement"]

    def holds(self, index: int) -> bool:
        """Whether measurement `index` was made."""
        return index < len(self.events)

    def recall(
        self, bench: Bench, index: int, policy: Policy, target_bytes: int
    ) -> tuple[Measurement, Candidate | None] | None:
        """A measurement as if it had been made now; None when it was not made, or its files are damaged.

        :raises RunError: another policy was measured in its place
        """
        if not self.holds(index):
            return None
        event = self.events[index]
        if Policy.from_json(event["policy"]) != policy or event["target_bytes"] != target_bytes:
            raise RunError(
                f"{self.run.directory.path} cannot be continued here: measurement {index} was of policy "
                f"{Policy.from_json(event['policy']).digest} at {event['target_bytes']:,} bytes, and the search now comes to "
                f"{policy.digest} at {target_bytes:,}; {_other_machine(self.run)}"
            )
        measurement = Measurement(**event["measurement"])
        candidate = None
        if measurement.failure is None:
            try:
                candidate = load_candidate(self.run.directory.path, index)
            except RunError as error:
                self.run.say.warn(f"{error}: candidate {index + 1} is measured again")
                return None
        bench.take_over(measurement, candidate, event["bench"])
        return measurement, candidate

    def check(self, index: int, measurement: Measurement) -> None:
        """A measurement that was repeated must come out as it did.

        :raises RunError: it does not
        """
        before = Measurement(**self.events[index]["measurement"])
        if (before.size_bytes, before.accuracy, before.failure) != (
            measurement.size_bytes,
            measurement.accuracy,
            measurement.failure,
        ):
            raise RunError(
                f"{self.run.directory.path} cannot be continued here: measurement {index} gave {before.size_bytes:,} bytes and "
                f"{before.accuracy:.4f}, repeated {measurement.size_bytes:,} and {measurement.accuracy:.4f}; "
                f"{_other_machine(self.run)}"
            )

    def searched(self, bench: Bench) -> Searched | None:
        """What the search ended with; None when it has not ended, or the picked candidate's files are damaged."""
        pick = self.run.directory.event("pick")
        timed = self.run.config.train.seconds is not None
        if pick is None or "candidate" not in pick or (timed and self.run.directory.event("time_final") is None):
            return None
        try:
            picked = load_candidate(self.run.directory.path, pick["candidate"])
        except RunError as error:
            self.run.say.warn(f"{error}: the search is gone through again")
            return None
        measurements = [Measurement(**event["measurement"]) for event in self.events]
        for event, measurement in zip(self.events, measurements, strict=True):
            bench.take_over(measurement, None, event["bench"])
        return Searched(picked, measurements, pick["search_seconds"])


@dataclass(frozen=True)
class Searched:
    """The end of a search.

    :param picked: the candidate that gets the long fine-tune
    """

    picked: Candidate
    measurements: list[Measurement]
    seconds: float


def environment_changes(run: Run) -> list[str]:
    """How this machine and its packages differ from those that the run began with."""
    try:
        before: dict[str, Any] = json.loads((run.directory.path / "environment.json").read_text())
    except (OSError, ValueError):
        return []
    now = environment()
    return [f"{name}: {before[name]}, now {now[name]}" for name in now if name in before and before[name] != now[name]]


def _other_machine(run: Run) -> str:
    changes = environment_changes(run)
    if changes:
        return f"different from then: {'; '.join(changes)}"
    return "versions and threads are the same, so it is another processor, or the journal was changed"
