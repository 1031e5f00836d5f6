"""The network as a map: rows are blocks in order, widths are bytes in the file, colours what was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from hirelc.report.charts.chart import ROWS, Chart, View, name, number, tips, view
from hirelc.report.decisions import short_name
from hirelc.report.kernels import KernelRow, Kernels
from hirelc.report.reading import Json, Run

ROW_PIXELS = 30
REST = "norms, biases, headers"
_LEAST_SHARE = 0.045  # of the widest row, for a label to fit into a kernel's box
_GRANULARITIES = ("learned", "per channel", "uniform", "log")


def network_map(run: Run, found: Kernels) -> Chart | None:
    """Where the bytes are; None when no file could be read."""
    if found.problem is not None or not found.rows:
        return None
    rows = _map_rows(found)
    return Chart(
        name="map",
        title="Where the bytes went",
        summary=(
            "A row per block, from input to output; in it a box per kernel, as wide as its bytes in the file. Kernels outside "
            "any block have rows of their own, and the last row is everything that is no kernel."
        ),
        rows=rows,
        views=_map_views(rows),
        columns={
            "Row": "row",
            "Kernel": "kernel",
            "Levels, bits": "bits",
            "Bits per weight, coded": "bits per weight",
            "Channels kept": "keep",
            "Type": "type",
            "Granularity": "granularity",
            "Bytes": "bytes",
            "Sensitivity": "sensitivity",
        },
        choose="Colour by",
    )


def _rows_of_map(found: Kernels) -> list[tuple[str, list[KernelRow]]]:
    """(label, kernels) in the network's order; kernels of the frame stand alone."""
    grouped = groupby(found.rows, key=lambda row: row.block or f"\0{row.name}")
    parts = [(list(members), key) for key, members in grouped]
    return [(short_name(members[0].name) if key.startswith("\0") else key, members) for members, key in parts]


def _map_rows(found: Kernels) -> list[Json]:
    rows: list[Json] = []
    for label, members in _rows_of_map(found):
        start = 0
        for row in members:
            size = row.size_bytes or 0
            rows.append(
                {
                    "row": label,
                    "kernel": short_name(row.name),
                    "bits": row.bits,
                    "keep": 100 * row.keep_ratio,
                    "type": row.number_type,
                    "granularity": row.granularity.replace("_", " "),
                    "bytes": size,
                    "from": start,
                    "to": start + size,
                    "bits per weight": row.bits_per_weight,
                    "sensitivity": row.sensitivity,
                }
            )
            start += size
    widest = max(box["to"] for box in rows)
    for box in rows:
        box["room"] = box["bytes"] >= _LEAST_SHARE * widest
    if found.other_bytes:
        rows.append({"row": REST, "kernel": "everything else", "bytes": found.other_bytes, "from": 0, "to": found.other_bytes})
    return rows


@dataclass(frozen=True)
class _Frame:
    """What all views of the map share: how many rows, and the bytes of the widest."""

    rows: int
    widest: int


def _map_views(rows: Sequence[Json]) -> list[View]:
    frame = _Frame(len({row["row"] for row in rows}), max(row["to"] for row in rows))
    coded = [row["bits per weight"] for row in rows if row.get("bits per weight")] or [1.0, 8.0]
    low, high = min(coded), max(max(coded), 1.5 * min(coded))
    bits = number(
        "bits per weight",
        "bits per weight, coded",
        scale={"type": "log", "domain": [low, high]},
        legend={"orient": "bottom", "format": ".1f"},
    )
    least = min(row["keep"] for row in rows if "keep" in row)
    keep = number("keep", "channels kept, %", scale={"domain": [min(50.0, least), 100]}, legend={"orient": "bottom"})
    pale = f"datum['bits per weight'] < {math.sqrt(low * high):.3f}"
    kept = f"datum.keep < {0.45 * min(50.0, least) + 55:.1f}"
    layouts = name("granularity", "granularity", scale={"domain": list(_GRANULARITIES)}, legend={"orient": "bottom"})
    return [
        _map_view(
            "Bits per weight",
            frame,
            bits,
            [
                _label(frame, "bits per weight", ".1f", pale, "on-pale"),
                _label(frame, "bits per weight", ".1f", f"!({pale})", "on-deep"),
            ],
        ),
        _map_view(
            "Channels kept",
            frame,
            keep,
            [_label(frame, "keep", ".0f", kept, "on-pale"), _label(frame, "keep", ".0f", f"!({kept})", "on-deep")],
        ),
        _map_view(
            "Type", frame, name("type", "number type", scale={"domain": ["int", "float"]}, legend={"orient": "bottom"}), []
        ),
        _map_view("Granularity", frame, layouts, []),
    ]


def _map_view(label: str, frame: _Frame, color: Json, labels: list[Json]) -> View:
    place = {
        "x": _bytes("from", frame.widest),
        "x2": {"field": "to"},
        "y": name("row", None, axis={"ticks": False, "domain": False}, scale={"paddingInner": 0.12}),
    }
    fields = ("kernel", "bits", ("keep", ".0f"), "type", "granularity", ("bytes", ","))
    tooltip = tips("row", *fields, ("bits per weight", ".2f"), ("sensitivity", ".2f"))
    return view(
        label,
        ROW_PIXELS * frame.rows,
        layer=[
            {
                "transform": [{"filter": "isValid(datum.bits)"}],
                "mark": {"type": "rect", "style": "edge", "cornerRadius": 2},
                "encoding": {**place, "color": color, "tooltip": tooltip},
            },
            {
                "transform": [{"filter": "!isValid(datum.bits)"}],
                "mark": {"type": "rect", "style": ["edge", "rest"], "cornerRadius": 2},
                "encoding": {**place, "tooltip": tips("kernel", ("bytes", ","))},
            },
            *labels,
        ],
    )


def _bytes(field: str, widest: int) -> Json:
    return number(
        field, "bytes in the file", axis={"format": "~s", "tickCount": 6}, scale={"domain": [0, widest], "nice": True}
    )


def _label(frame: _Frame, field: str, pattern: str, only: str, style: str) -> Json:
    return {
        "transform": [
            {"filter": f"datum.room && isValid(datum.bits) && ({only})"},
            {"calculate": "(datum.from + datum.to) / 2", "as": "middle"},
        ],
        "mark": {"type": "text", "style": style, "aria": False, "fontSize": 12, "tooltip": None},
        "encoding": {
            "x": _bytes("middle", frame.widest),
            "y": name("row", None),
            "text": number(field, None, **({"format": pattern} if pattern else {})),
        },
    }


def sensitivity_chart(run: Run, found: Kernels) -> Chart | None:
    """Fisher sensitivity, row by row as in the map; None before it was measured."""
    measured = run.event("sensitivity")
    if not measured or not found.rows:
        return None
    rows: list[Json] = []
    for label, members in _rows_of_map(found):
        block = measured.get("blocks", {}).get(label)
        if block is not None:
            rows.append({"row": label, "what": "block", "sensitivity": block})
        rows += [
            {"row": label, "what": "kernel", "kernel": short_name(row.name), "sensitivity": row.sensitivity}
            for row in members
            if row.sensitivity is not None
        ]
    labels = [label for label, _ in _rows_of_map(found)] + ([REST] if found.other_bytes else [])
    return Chart(
        name="sensitivity",
        title="Sensitivity",
        summary=(
            "Fisher information of the same rows, on a logarithmic scale from 0 to 1: bars are blocks among blocks, "
            "points kernels among kernels."
        ),
        rows=rows,
        views=[_sensitivity_view(labels)],
        columns={"Row": "row", "What": "what", "Kernel": "kernel", "Sensitivity": "sensitivity"},
    )


def _sensitivity_view(labels: Sequence[str]) -> View:
    place = {
        "x": number("sensitivity", "sensitivity", scale={"domain": [0, 1]}, axis={"tickCount": 4}),
        "y": {
            **name("row", None, axis={"ticks": False, "domain": False}),
            "scale": {"domain": list(labels), "paddingInner": 0.12},
        },
    }
    return view(
        "Sensitivity",
        ROW_PIXELS * len(labels),
        layer=[
            {
                "data": {"name": ROWS},
                "transform": [{"filter": "datum.what === 'block'"}],
                "mark": {"type": "bar", "style": "rest", "cornerRadius": 2},
                "encoding": {**place, "tooltip": tips("row", "what", ("sensitivity", ".3f"))},
            },
            {
                "transform": [{"filter": "datum.what === 'kernel'"}],
                "mark": {"type": "point", "filled": True, "size": 55, "opacity": 0.9},
                "encoding": {
                    **place,
                    "color": {"datum": "kernel", "legend": None},
                    "tooltip": tips("row", "kernel", ("sensitivity", ".3f")),
                },
            },
        ],
    )
