"""Variants of the search beside each other: what each lost, and how soon."""

from __future__ import annotations

from collections.abc import Sequence

from hirelc.report.charts.chart import Chart, name, number, order, tips, view
from hirelc.report.reading import Json

ROW_PIXELS = 24


def ablation_charts(runs: Sequence[Json], curves: Sequence[Json]) -> list[Chart]:
    """
    :param runs: variant, seed, lost, bytes, ratio, minutes; :param curves: variant, seed, measurement, best
    """
    charts = []
    if runs:
        charts.append(_lost(runs))
    if curves:
        charts.append(_so_far(curves))
    return charts


def _lost(runs: Sequence[Json]) -> Chart:
    across = number("lost", "points lost on the search-validation split", scale={"zero": False, "padding": 16})
    down = name("variant", None)
    tooltip = tips("variant", "seed", ("lost", "+.2f"), ("bytes", ","), ("ratio", ".1f"), ("minutes", ".1f"))
    points = {
        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.7},
        "encoding": {"x": across, "y": down, "tooltip": tooltip},
    }
    middle = {
        "mark": {"type": "tick", "thickness": 3, "size": ROW_PIXELS - 6},
        "encoding": {"x": {**across, "aggregate": "mean"}, "y": down},
    }
    variants = len({row["variant"] for row in runs})
    return Chart(
        name="lost",
        title="Points lost by each variant",
        summary="A point per seed, a bar at their mean; the least drop on top. All files are equally long.",
        rows=runs,
        views=[view("Lost", ROW_PIXELS * variants + 20, layer=[points, middle])],
        columns={"Variant": "variant", "Seed": "seed", "Points lost": "lost", "Bytes": "bytes"},
    )


def _so_far(curves: Sequence[Json]) -> Chart:
    return Chart(
        name="best-so-far",
        title="Best so far",
        summary="Points lost by the best file within the limit after each measurement, mean over seeds.",
        rows=curves,
        views=[
            view(
                "Best",
                320,
                mark={"type": "line", "point": {"size": 40}},
                encoding={
                    "x": order("measurement", "measurements", axis={"labelAngle": 0}),
                    "y": number("best", "points lost", aggregate="mean", scale={"zero": False}),
                    "color": name("variant", None, scale={"scheme": "tableau20"}, legend={"orient": "right", "columns": 1}),
                    "tooltip": tips("variant", "measurement"),
                },
            )
        ],
        columns={"Variant": "variant", "Seed": "seed", "Measurement": "measurement", "Points lost": "best"},
    )
