"""Drops as a curve of the loss."""

from __future__ import annotations

import pytest

from hirelc.policy import Goal, Measurement, Policy
from hirelc.search.archive import Archive
from hirelc.search.likely import Scale


def measured(drop: float, loss: float | None, size: int = 100, failure: str | None = None) -> Measurement:
    return Measurement(size, 90.0 - drop, drop, 1, "search-validation", failure=failure, excess_loss=loss)


def test_losses_put_accuracies_in_order() -> None:
    """Drawn around 40 points per unit: the order by drop is wrong, that by loss is right."""
    found = [measured(1.3, 0.02), measured(0.7, 0.03), measured(1.6, 0.04)]
    scale = Scale.of(found)
    likely = [scale.likely(m) for m in found]
    assert likely == sorted(likely) and sum(likely) == pytest.approx(3.6, rel=0.1)
    assert scale.factor is not None and scale.factor * 0.03**scale.power == pytest.approx(1.2, rel=0.1)
    assert found[0].verdict.beats(found[1].verdict) and not found[2].verdict.beats(found[1].verdict)


def test_enough_measurements_bend_the_curve() -> None:
    """Small losses that cost more than a line through the large ones says: as on the common ResNet-20, rounded."""
    root = [measured(round(3.5 * loss**0.5, 2), loss) for loss in (0.014, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4)]
    straight = [measured(round(25 * loss, 2), loss) for loss in (0.014, 0.02, 0.03, 0.05, 0.1, 0.15)]
    assert Scale.of(root).power < 0.65 and Scale.of(straight).power > 0.9
    scale = Scale.of(root)
    assert all(scale.likely(m) == pytest.approx(m.drop_points, abs=0.15) for m in root)
    assert scale.of_loss(0.1) == pytest.approx(1.1, abs=0.15) and scale.of_loss(0.0) == 0


def test_what_says_nothing_is_left_out() -> None:
    known = [measured(1.0, 0.02), measured(2.0, 0.04)]
    ruined, failed, unknown = measured(60.0, 1.0), measured(190.0, None, failure="the loss became NaN"), measured(0.5, None)
    scale = Scale.of([*known, ruined, failed, unknown])
    assert scale == Scale.of(known)
    assert scale.likely(ruined) == 60.0 and scale.likely(unknown) == 0.5
    better, worse = unknown.verdict, known[0].verdict
    assert better.beats(worse) and not worse.beats(better)  # by accuracy, where a loss is missing


def test_without_a_loss_drops_are_as_measured() -> None:
    for found in ([], [measured(1.0, None)], [measured(-0.3, -0.01), measured(0.2, 0.005)]):
        scale = Scale.of(found)
        assert scale.factor is None and [scale.likely(m) for m in found] == [m.drop_points for m in found]
        with pytest.raises(ValueError, match="no measured loss"):
            scale.of_loss(0.02)


def test_better_losses_never_mean_more_points_lost() -> None:
    """Not even where students beat the original on average."""
    found = [measured(-0.4, 0.01), measured(-0.1, 0.03)]
    scale = Scale.of(found)
    assert scale.factor is not None and scale.factor > 0
    assert scale.likely(found[0]) < scale.likely(found[1])


def test_the_archive_picks_by_the_loss() -> None:
    archive: Archive[str] = Archive()
    for name, m in {"lucky": measured(0.5, 0.03), "better": measured(0.6, 0.02)}.items():
        archive.add(Policy(()), m, name)
    assert archive.pick(Goal(max_bytes=100), 1000).entry.payload == "better"
    assert archive.pick(Goal(max_bytes=100), 1000, later=0.25).entry.payload == "better"
