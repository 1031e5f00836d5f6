"""What a chart is: rows, one or more views of them, and the words for those who do not see it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hirelc.report.reading import Json

ROWS = "rows"  # the name under which a view finds the chart's rows


@dataclass(frozen=True)
class View:
    """One way to look at a chart's rows.

    :param spec: Vega-Lite, without data and theme
    """

    label: str
    spec: Json


@dataclass(frozen=True)
class Chart:
    """:param name: of files and anchors
    :param summary: what the chart shows, in a sentence or two
    :param columns: heading of the table of numbers -> field of the rows
    :param choose: what the buttons that change the view choose
    """

    name: str
    title: str
    summary: str
    rows: Sequence[Json]
    views: Sequence[View]
    columns: Mapping[str, str]
    choose: str = "Show"

    def to_json(self) -> Json:
        """What the page's script draws from; fields are named once, since a large network has thousands of rows."""
        fields = list(dict.fromkeys(field for row in self.rows for field in row))
        table = [[row.get(field) for field in fields] for row in self.rows]
        views = [{"label": view.label, "spec": view.spec} for view in self.views]
        return {"fields": fields, "rows": table, "views": views, "columns": dict(self.columns)}

    def specs(self) -> dict[str, Json]:
        """Complete descriptions by file name, data included."""
        one = len(self.views) == 1
        return {
            self.name if one else f"{self.name}-{_slug(view.label)}": {**view.spec, "datasets": {ROWS: list(self.rows)}}
            for view in self.views
        }


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def view(label: str, height: int, **content: Any) -> View:
    """A view as wide as its place; `height` in pixels."""
    sizes = {"width": "container", "height": height}
    return View(label, {**sizes, "data": {"name": ROWS}, **content})


def number(field: str, title: str | None, **more: Any) -> Json:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def name(field: str, title: str | None, **more: Any) -> Json:
    """A nominal channel in the order of the rows."""
    return {"field": field, "type": "nominal", "title": title, "sort": None, **more}


def order(field: str, title: str | None, **more: Any) -> Json:
    """An ordinal channel."""
    return {"field": field, "type": "ordinal", "title": title, **more}


def tips(*fields: str | tuple[str, str]) -> list[Json]:
    """Tooltip lines: fields, or (field, number format)."""
    return [
        {"field": f, "title": f}
        if isinstance(f, str)
        else {"field": f[0], "title": f[0], "type": "quantitative", "format": f[1]}
        for f in fields
    ]


def cycle_select(cycles: Sequence[int]) -> Json:
    """A parameter `shown` with a select box beneath the chart: which cycle is shown, the last one to begin with."""
    return {
        "name": "shown",
        "value": cycles[-1],
        "bind": {"input": "select", "options": list(cycles), "name": "Cycle "},
    }
