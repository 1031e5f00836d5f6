"""Bytes against accuracy: every measurement, the uncompressed networks, the limits of the goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hirelc.journal import ADDED
from hirelc.report.charts.chart import Chart, View, name, number, tips, view
from hirelc.report.reading import Json, Run
from hirelc.report.steps import FULL, Step, added, best_so_far, byte_limit, on_front, picked, policy_lines, policy_words

ORIGINAL, CONTROL, FINAL, REJECTED = "original, fp32", "control, fp32", "compressed, fine-tuned", "rejected"
_BITS = {"field": "bits", "title": "bits by block (f: float, %: kept)"}
_ORIGINS = {
    "vote": "voted policy",
    "reference": "reference policy",
    "incumbent": "best so far, trained on",
    ADDED: "added to the front",
    "picked": "moved to the goal",
}


def front_rows(run: Run, measured: Sequence[Step]) -> list[Json]:
    """A row per point, on the search-validation split; rejected candidates have none."""
    rows: list[Json] = []
    standing = [step for step in [*measured, *added(run)] if step.failure is None]
    # where nothing was trained in full, all are what there is
    full = any(step.fidelity == FULL for step in standing)
    best = picked(run, measured) or best_so_far(run, measured)
    front = on_front([(step.size_bytes, step.accuracy) for step in standing])
    for step, leads in zip(standing, front, strict=True):
        rows.append(
            _row(
                run,
                kind=_ORIGINS.get(step.origin, step.origin),
                label=f"{step.where}, candidate {step.number + 1}",
                size=step.size_bytes,
                accuracy=step.accuracy,
                front="yes" if leads else "no",
                picked="yes" if step is best else "no",
                training=step.fidelity if full else FULL,
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
    blank = {"front": "no", "picked": "no", "policy": "", "bits": "", "training": FULL}
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
        title=f"Bytes against {run.metric}",
        summary=(
            "Each point is a network read back from its file and measured on the search-validation split; further left is "
            f"smaller, further up is better. The ring marks the policy {chosen}. Dashed lines are the goal's limits."
        ),
        rows=rows,
        views=_views(run, kinds, bool(run.all("control")), any(row["training"] != FULL for row in rows)),
        columns={
            "Point": "point",
            "Kind": "kind",
            "Bytes": "bytes",
            "Times smaller": "ratio",
            run.axis[:1].upper() + run.axis[1:]: "accuracy",
            "Points lost": "lost",
            "On the front": "front",
            "Training": "training",
            "Policy": "policy",
        },
    )


def _views(run: Run, kinds: Sequence[str], control: bool, trials: bool) -> list[View]:
    uncompressed = f"datum.kind === '{ORIGINAL}' || datum.kind === '{CONTROL}'"
    only = {"filter": f"!({uncompressed})"}
    wide = _Frame(run, "bytes of the whole file, logarithmic", {"type": "log", "nice": False, "padding": 24}, "~s", 6, "left")
    close = _Frame(run, "bytes of the whole file", {"zero": False, "nice": True, "padding": 24}, ",.0f", 4, "right")
    levels = [] if run.baseline is None else close.level(run.baseline, "original", "left")
    if control:
        levels += close.level(run.event("control")["accuracy"], "control", "right")
    compressed = [kind for kind in kinds if kind not in (ORIGINAL, CONTROL)]
    trained = {"filter": f"datum.training === '{FULL}'"}
    views = [
        view("With fp32", 360, layer=[*wide.limits(), *_filtered(wide.points(kinds), trained)]),
        view("Close-up", 360, layer=[*close.limits(), *levels, *_filtered(close.points(compressed), only, trained)]),
    ]
    if trials:  # hardly trained, they would squeeze the others together
        views.append(view("With trials", 360, layer=[*wide.limits(), *wide.points(kinds)]))
    return views


def _filtered(layers: Sequence[Json], *filters: Json) -> list[Json]:
    return [{**layer, "transform": [*filters, *layer.get("transform", [])]} for layer in layers]


@dataclass(frozen=True)
class _Frame:
    """The axes of a view, which all its layers share.

    :param side: of the limit on bytes, where its words have room
    """

    run: Run
    title: str
    scale: Json
    pattern: str
    ticks: int
    side: str

    def x(self, field: str) -> Json:
        axis = {"format": self.pattern, "tickCount": self.ticks}
        return number(field, self.title, scale=self.scale, axis=axis)

    def y(self, field: str) -> Json:
        return number(field, self.run.axis, scale={"zero": False, "padding": 20})

    def points(self, kinds: Sequence[str]) -> list[Json]:
        position = {"x": self.x("bytes"), "y": self.y("accuracy")}
        kind = name("kind", None, scale={"domain": list(kinds)})
        values = (("bytes", ","), ("ratio", ".2f"), ("accuracy", ".2f"), ("lost", "+.2f"))
        return [
            {
                "transform": [{"filter": "datum.front === 'yes'"}],
                "mark": {"type": "line", "interpolate": "step-after", "opacity": 0.6, "style": "limit", "aria": False},
                "encoding": {**position, "order": number("bytes", None)},
            },
            {
                "transform": [{"filter": "datum.picked === 'yes'"}],
                "mark": {"type": "point", "size": 420, "style": "ring", "filled": False, "aria": False, "tooltip": None},
                "encoding": position,
            },
            {
                "mark": {"type": "point", "filled": True, "size": 110, "opacity": 0.95},
                "encoding": {
                    **position,
                    "color": kind,
                    "shape": kind,
                    "tooltip": [*tips("point", "kind", *values, "policy"), _BITS],
                },
            },
        ]

    def limits(self) -> list[Json]:
        """The goal: a file no larger than this, an accuracy no lower than that."""
        run = self.run
        layers = []
        limit = byte_limit(run.goal, run.original_bytes)
        if limit is not None:
            data = {"values": [{"at": limit, "words": f"goal: {limit:,} bytes"}]}
            place = {"align": self.side, "dx": 6 if self.side == "left" else -6, "baseline": "bottom", "y": "height", "dy": -4}
            layers += self._rule(data, {"x": self.x("at")}, place, [4, 4])
        if run.goal.get("max_drop") is not None and run.baseline is not None:
            layers += self.level(run.baseline - run.goal["max_drop"], "goal", "right", [4, 4])
        return layers

    def level(self, accuracy: float, words: str, side: str, dash: Sequence[int] = (1, 0)) -> list[Json]:
        """A line across the chart, with words at one of its ends."""
        data = {"values": [{"at": accuracy, "words": f"{words}: {accuracy:.2f} {self.run.unit}".strip()}]}
        place = {"align": side, "baseline": "bottom", "dy": -3, "x": 2 if side == "left" else "width"}
        return self._rule(data, {"y": self.y("at")}, place, dash)

    def _rule(self, data: Json, along: Json, place: Json, dash: Sequence[int]) -> list[Json]:
        rule = {"type": "rule", "aria": False, "opacity": 0.8, "strokeDash": list(dash)}
        words = {"type": "text", "style": "quiet", "aria": False, "tooltip": None, **place}
        return [
            {"data": data, "mark": rule, "encoding": along},
            {"data": data, "mark": words, "encoding": {**along, "text": {"field": "words"}}},
        ]
