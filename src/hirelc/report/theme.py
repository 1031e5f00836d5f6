"""Colours and type of all charts, light and dark, as Vega-Lite configurations.

Series colours are of Okabe and Ito's set, which colour-blind readers can tell apart; the ramps run from the page's
background to its opposite, so that more of something stands out in both themes.
"""

from __future__ import annotations

from dataclasses import dataclass

from hirelc.report.reading import Json

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class _Palette:
    ink: str
    soft: str
    grid: str
    rest: str
    paper: str
    series: tuple[str, ...]
    ramp: tuple[str, ...]
    diverging: tuple[str, ...]
    on_pale: str
    on_deep: str


_LIGHT = _Palette(
    ink="#1b2430",
    soft="#5a6675",
    grid="#e4e8ed",
    rest="#d3d9e0",
    paper="#ffffff",
    series=("#0b6fb8", "#c25400", "#00835f", "#a8558a", "#946c00", "#4b4f56", "#2a9bd0"),
    ramp=("#dcebf7", "#b5d5ec", "#86bbdd", "#559dca", "#2f7db3", "#175c92", "#083a66"),
    diverging=("#b3400a", "#e8a87f", "#eef0f2", "#83b8d8", "#0b5c98"),
    on_pale="#1b2430",
    on_deep="#ffffff",
)
_DARK = _Palette(
    ink="#e6eaf0",
    soft="#a3afbd",
    grid="#2c3540",
    rest="#3d4855",
    paper="#171d25",
    series=("#62b5ee", "#f08a4b", "#35c69b", "#d98fc0", "#e0b43c", "#b4bcc6", "#9ad8f5"),
    ramp=("#1d3449", "#22486a", "#2a608f", "#33709f", "#5ba0d3", "#8dc3e9", "#cbe6f8"),
    diverging=("#f2935b", "#9a5a38", "#2a323c", "#35719c", "#74bdf0"),
    on_pale="#e6eaf0",
    on_deep="#0d1218",
)


def config(dark: bool = False, paper: bool = False) -> Json:
    """A Vega-Lite configuration.

    :param paper: with a white background, for files; else the page's own shines through
    """
    p = _DARK if dark else _LIGHT
    axis = {
        "labelColor": p.soft,
        "titleColor": p.soft,
        "gridColor": p.grid,
        "domainColor": p.grid,
        "tickColor": p.grid,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
        "titlePadding": 8,
        "labelPadding": 5,
    }
    return {
        "background": p.paper if paper else "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {
            "labelColor": p.ink,
            "titleColor": p.soft,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "symbolBaseFillColor": p.ink,
            "symbolBaseStrokeColor": p.ink,
            "orient": "top",
            "labelLimit": 260,
            "columns": 6,
        },
        "header": {"labelColor": p.ink, "titleColor": p.soft},
        "text": {"color": p.ink, "fontSize": 12},
        "rule": {"color": p.soft},
        "point": {"filled": True, "size": 90},
        "range": {
            "category": list(p.series),
            "ordinal": {"scheme": list(p.ramp)},
            "ramp": list(p.ramp),
            "heatmap": list(p.ramp),
            "diverging": list(p.diverging),
            "symbol": ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"],
        },
        "style": {
            "edge": {"stroke": p.paper, "strokeWidth": 1.5},
            "rest": {"color": p.rest},
            "on-pale": {"color": p.on_pale},
            "on-deep": {"color": p.on_deep},
            "quiet": {"color": p.soft, "fontSize": 11},
            "limit": {"color": p.soft, "strokeDash": [4, 4]},
            "ring": {"color": p.ink, "strokeWidth": 1.8},
        },
    }
