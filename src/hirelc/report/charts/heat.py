"""Coloured cells with their numbers in them."""

from __future__ import annotations

from hirelc.report.charts.chart import View, name, order, view
from hirelc.report.reading import Json

HEAT_PIXELS, VOTE_PIXELS = 26, 22  # height of a row


def heat(label: str, height: int, title: str, cells: Json, color: Json, deep: str) -> View:
    """Coloured cells with their numbers in them.

    :param cells: x, y, text and tooltip
    :param deep: an expression that holds where the cell's colour is so strong that its number needs the other ink
    """
    place = {"x": cells["x"], "y": cells["y"]}
    layers: list[Json] = [
        {
            "mark": {"type": "rect", "style": "edge", "cornerRadius": 2},
            "encoding": {**place, "color": {**color, "title": title}, "tooltip": cells["tooltip"]},
        }
    ]
    for style, only in (("on-pale", f"!({deep})"), ("on-deep", deep)):
        layers.append(
            {
                "transform": [{"filter": only}],
                "mark": {"type": "text", "style": style, "aria": False, "tooltip": None, "fontSize": 11},
                "encoding": {**place, "text": cells["text"]},
            }
        )
    return view(label, height, layer=layers)


def by_cycle(rows: str) -> Json:
    plain = {"ticks": False, "domain": False}
    return {"x": order("cycle", "cycle", axis={"labelAngle": 0, **plain}), "y": name(rows, None, axis=plain)}
