"""Bytes against accuracy: every measurement, the uncompressed networks, the limits of the goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hirelc.report.charts.chart import Chart, View, name, number, tips, view
from hirelc.report.reading import Json, Run
from hirelc.report.steps import Step, best_so_far, byte_limit, on_front, picked, policy_lines, policy_words

ORIGINAL, CONTROL, FINAL, REJECTED = "original, fp32", "control, fp32", "compressed, fine-tuned", "rejected"
_ORIGINS = {"vote": "voted policy", "reference": "reference policy"}


def front_rows(run: Run, measured: Sequence[Step]) -> list[Json]:
    """A row per point, on the search-validation split; rejected candidates have none."""
    rows: list[Json] = []
    standing = [step for step in measured if step.failure is None]
    best = picked(run, measured) or best_so_far(run, measured)
    front = on_front([(step.size_bytes, step.accuracy) for step in standing])
    for step, leads in zip(standing, front, strict=True):
        rows.append(
            _row(
                run,
                kind=_ORIGINS.get(step.origin, step.origin),
                label=f"cycle {step.cycle}, candidate {step.number + 1}",
                size=step.size_bytes,
                accuracy=step.accuracy,
                front="yes" if leads else "no",
                picked="yes" if step is best else "no",
                policy=policy_words(step.choices),
                bits=policy_lines(step.choices, run.blocks()),
            )
        )
    final = run.event("final")
    if final:
        choices = final.get("policy", {}).get("choices", {})
        words = {"policy": policy_words(choices), "bits": policy_lines(choices, run.blocks())}
        rows.append(_row(run, kind=FINAL, label="final file", size=final["size_bytes"], accuracy=final["accuracy"], **words))
    return rows + _uncompressed(run)


def _uncompressed(run: Run) -> list[Json]:
    if run.original_bytes is None or run.baseline is None:
        return []
    rows = [_row(run, kind=ORIGINAL, label="original", size=run.original_bytes, accuracy=run.baseline, policy="none")]
    control = run.event("control").get("accuracy")
    if control is not None:
        rows.append(_row(run, kind=CONTROL, label="control", size=run.original_bytes, accuracy=control, policy="none"))
    return rows


def _row(run: Run, *, kind: str, label: str, size: int, accuracy: float, **more: Any) -> Json:
    ratio = run.original_bytes / size if run.original_bytes else None
    drop = None if run.baseline is None else run.baseline - accuracy
    blank = {"front": "no", "picked": "no", "policy": "", "bits": ""}
    return {"kind": kind, "point": label, "bytes": size, "accuracy": accuracy, "ratio": ratio, "lost": drop, **blank, **more}


def front_chart(run: Run, measured: Sequence[Step]) -> Chart | None:
    """The front, with fp32 in view and close up; None before anything was measured."""
    rows = front_rows(run, measured)
    compressed = [row for row in rows if row["kind"] not in (ORIGINAL, CONTROL)]
    if not compressed:
        return None
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    chosen = "picked for the final fine-tune" if picked(run, measured) else "best so far"
    return Chart(
        name="front",
        title="Bytes against accuracy",
        summary=(
            "Each point is a network read back from its file and measured on the search-validation split; further left is "
            f"smaller, further up is better. The ring marks the policy {chosen}. Dashed lines are the goal's limits."
        ),
        rows=rows,
        views=_views(run, kinds, bool(run.all("control"))),
        columns={
            "Point": "point",
            "Kind": "kind",
            "Bytes": "bytes",
            "Times smaller": "ratio",
            "Accuracy, %": "accuracy",
            "Points lost": "lost",
            "On the front": "front",
            "Policy": "policy",
        },
    )


def _views(run: Run, kinds: Sequence[str], control: bool) -> list[View]:
    uncompressed = f"datum.kind === '{ORIGINAL}' || datum.kind === '{CONTROL}'"
    near = {"transform": [{"filter": f"!({uncompressed})"}]}
    levels = [{"y": run.baseline, "text": "original"}] if run.baseline is not None else []
    if control:
        levels.append({"y": run.event("control")["accuracy"], "text": "control"})
    wide = [*_limits(run), *_points(kinds, log=True)]
    close = [*_limits(run), *_levels(levels), *_points([k for k in kinds if k not in (ORIGINAL, CONTROL)], log=False)]
    return [view("With fp32", 360, layer=wide), view("Close-up", 360, layer=[_shown(layer, near) for layer in close])]


def _shown(layer: Json, near: Json) -> Json:
    if "data" in layer:
        return layer
    return {**layer, "transform": [*near["transform"], *layer.get("transform", [])]}


def _points(kinds: Sequence[str], log: bool) -> list[Json]:
    scale: Json = {"type": "log", "nice": False, "padding": 24} if log else {"zero": False, "nice": True, "padding": 24}
    position = {
        "x": number("bytes", "bytes of the whole file" + (" (log)" if log else ""), scale=scale, axis=_bytes_axis(log)),
        "y": number("accuracy", "accuracy, %", scale={"zero": False, "padding": 20}),
    }
    shape = name("kind", None, scale={"domain": list(kinds)})
    tooltip = tips("point", "kind", ("bytes", ","), ("ratio", ".2f"), ("accuracy", ".2f"), ("lost", "+.2f"), "policy", "bits")
    return [
        {
            "transform": [{"filter": "datum.front === 'yes'"}],
            "mark": {"type": "line", "interpolate": "step-after", "opacity": 0.5, "style": "limit", "aria": False},
            "encoding": {**position, "order": number("bytes", None)},
        },
        {
            "transform": [{"filter": "datum.picked === 'yes'"}],
            "mark": {"type": "point", "size": 420, "style": "ring", "filled": False, "aria": False, "tooltip": None},
            "encoding": position,
        },
        {
            "mark": {"type": "point", "filled": True, "size": 110, "opacity": 0.95},
            "encoding": {**position, "color": shape, "shape": shape, "tooltip": tooltip},
        },
    ]


def _bytes_axis(log: bool) -> Json:
    return {"format": "~s", "tickCount": 6} if log else {"format": ",", "tickCount": 5, "labelFlush": False}


def _limits(run: Run) -> list[Json]:
    """The goal: a file no larger than this, an accuracy no lower than that."""
    layers = []
    limit = byte_limit(run.goal, run.original_bytes)
    if limit is not None:
        layers += _rule("x", limit, f"goal: {limit:,} bytes")
    if run.goal.get("max_drop") is not None and run.baseline is not None:
        least = run.baseline - run.goal["max_drop"]
        layers += _rule("y", least, f"goal: {least:.2f} %")
    return layers


def _levels(levels: Sequence[Json]) -> list[Json]:
    return [layer for level in levels for layer in _rule("y", level["y"], f"{level['text']} {level['y']:.2f} %", dash=False)]


def _rule(channel: str, value: float, words: str, dash: bool = True) -> list[Json]:
    data = {"values": [{"at": value, "words": words}]}
    along = {channel: number("at", None)}
    if channel == "x":
        text: Json = {"align": "right", "dx": -5, "baseline": "top", "y": 2}
    else:
        text = {"align": "right", "baseline": "bottom", "dy": -3, "x": "width"}
    rule: Json = {"type": "rule", "aria": False, "opacity": 0.8, "strokeDash": [4, 4] if dash else [1, 0]}
    return [
        {"data": data, "mark": rule, "encoding": along},
        {
            "data": data,
            "mark": {"type": "text", "style": "quiet", "aria": False, **text},
            "encoding": {**along, "text": {"field": "words"}},
        },
    ]
