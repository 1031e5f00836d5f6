"""What the loss makes of measured drops: accuracies of a few thousand samples differ by chance where losses do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hirelc.policy import Measurement

REGION = 5.0  # points: beyond, drops are no line of the loss, and large enough to be told apart
MEASURED = 0.2  # weight of the measured drop beside the line: accuracies that losses cannot tell apart still count
LEAST_DROP = 0.1  # points that the mean measurement is taken to lose at least, where it says how much a loss is worth


@dataclass(frozen=True)
class Scale:
    """Drops in points as a line of the excess loss, through the mean of what was measured; without losses, as measured.

    :param slope: points per unit of loss, above 0; None where too little is known
    """

    loss: float = 0.0
    drop: float = 0.0
    slope: float | None = None

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> Scale:
        """The line whose slope is that from the origin to the mean: few measurements tell no other."""
        known = [
            (m.excess_loss, m.drop_points)
            for m in measurements
            if m.failure is None and m.excess_loss is not None and m.drop_points <= REGION
        ]
        if not known:
            return cls()
        loss, drop = (sum(values) / len(known) for values in zip(*known, strict=True))
        return cls(loss, drop, max(drop, LEAST_DROP) / loss) if loss > 0 else cls()

    def likely(self, measurement: Measurement) -> float:
        """Points that the measured network loses, in all likelihood."""
        if self.slope is None or measurement.excess_loss is None or measurement.drop_points > REGION:
            return measurement.drop_points
        line = self.drop + self.slope * (measurement.excess_loss - self.loss)
        return MEASURED * measurement.drop_points + (1 - MEASURED) * line
