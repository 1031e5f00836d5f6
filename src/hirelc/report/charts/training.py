"""Fine-tuning curves, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence

from hirelc.report.charts.chart import Chart, name, number, order, tips, view
from hirelc.report.decisions import training_rows
from hirelc.report.reading import Json, Run
from hirelc.report.steps import Step
from hirelc.report.timing import spans
from hirelc.report.words import duration


def training_chart(run: Run, measured: Sequence[Step]) -> Chart | None:
    """Accuracy on the search-validation split along each fine-tune."""
    rows = training_rows(run, measured)
    if not rows:
        return None
    layers: list[Json] = [
        {
            "mark": {"type": "line", "point": {"filled": True, "size": 45}},
            "encoding": {
                "x": number("images", "training images seen", axis={"format": "~s", "tickCount": 6}),
                "y": number("accuracy", run.axis, scale={"zero": False}),
                "color": name("fine-tune", None),
                "tooltip": tips("fine-tune", ("images", ","), ("accuracy", ".2f")),
            },
        }
    ]
    if run.baseline is not None:
        data = {"values": [{"at": run.baseline, "words": f"original {run.baseline:.2f} {run.unit}".strip()}]}
        layers += [
            {"data": data, "mark": {"type": "rule", "style": "limit", "aria": False}, "encoding": {"y": number("at", None)}},
            {
                "data": data,
                "mark": {"type": "text", "style": "quiet", "aria": False, "align": "right", "x": "width", "dy": -7},
                "encoding": {"y": number("at", None), "text": {"field": "words"}},
            },
        ]
    return Chart(
        name="training",
        title="Fine-tuning",
        summary=(
            f"{run.metric.capitalize()} on the search-validation split as fine-tuning goes on, with quantization simulated; "
            "the best state is kept. The control is the uncompressed original, trained alike."
        ),
        rows=rows,
        views=[view("Fine-tuning", 300, layer=layers)],
        columns={"Fine-tune": "fine-tune", "Images": "images", run.axis[:1].upper() + run.axis[1:]: "accuracy"},
    )


def time_chart(run: Run) -> Chart | None:
    """Seconds of each phase."""
    rows: list[Json] = [
        {
            "phase": span.phase,
            "cycle": "once" if span.cycle is None else f"cycle {span.cycle}",
            "seconds": span.seconds,
            "minutes": span.seconds / 60,
            "time": duration(span.seconds),
        }
        for span in spans(run)
    ]
    if not rows:
        return None
    totals = _totals(rows)
    room = {"domainMax": 1.4 * max(total["minutes"] for total in totals)}  # for the words beside the longest bar
    place = {"x": number("minutes", "minutes", scale=room), "y": name("phase", None, axis={"ticks": False, "domain": False})}
    bars = {
        "mark": {"type": "bar", "style": "edge", "cornerRadius": 2},
        "encoding": {
            **place,
            "color": order("cycle", None, legend=None),
            "order": order("cycle", None),
            "tooltip": tips("phase", "cycle", "time"),
        },
    }
    words = {
        "data": {"values": totals},
        "mark": {"type": "text", "style": "quiet", "aria": False, "tooltip": None, "align": "left", "dx": 5},
        "encoding": {**place, "text": {"field": "time"}},
    }
    return Chart(
        name="time",
        title="Where the time went",
        summary="Wall time of each phase, by the times in the journal; cycles of the search stand side by side.",
        rows=rows,
        views=[view("Time", 32 * len(totals), layer=[bars, words])],
        columns={"Phase": "phase", "Cycle": "cycle", "Time": "time"},
    )


def _totals(rows: Sequence[Json]) -> list[Json]:
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row["phase"]] = seconds.get(row["phase"], 0.0) + row["seconds"]
    return [{"phase": phase, "minutes": spent / 60, "time": duration(spent)} for phase, spent in seconds.items()]
