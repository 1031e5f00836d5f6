"""The charts of a run as files for papers: SVG and PNG, drawn from the same descriptions as the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hirelc.errors import RunError
from hirelc.report.charts.chart import Chart
from hirelc.report.content import content
from hirelc.report.extra import converter, vega_lite_version
from hirelc.report.reading import read_run
from hirelc.report.theme import config
from hirelc.store import atomic_write

WIDTH = 480  # points, of which 72 make an inch: two columns of a paper
DOTS_PER_INCH = 300


def write_figures(folder: str | Path, out: str | Path) -> list[Path]:
    """Writes every view of every chart as NAME.svg and NAME.png into a folder, which is made if need be.

    :returns: the files, in the order of the page
    :raises RunError: no run, no chart in it yet, the extra `report` is not installed, or the folder cannot be written
    """
    charts = content(read_run(folder), datetime.now(UTC)).charts
    if not charts:
        raise RunError(f"{folder}: nothing has been measured yet, so there is no figure to draw")
    return draw(charts, Path(out))


def draw(charts: Sequence[Chart], target: Path) -> list[Path]:
    """Draws every view of charts as NAME.svg and NAME.png into a folder, which is made if need be.

    :raises RunError: the extra `report` is not installed, or the folder cannot be written
    """
    library, version = converter(), vega_lite_version()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{target} cannot be made ({error.strerror}): choose another folder with --figures") from error
    files = []
    for name, spec in (pair for chart in charts for pair in chart.specs().items()):
        fixed = {**spec, "width": WIDTH, "config": config(paper=True)}
        svg = library.vegalite_to_svg(fixed, vl_version=version)
        png = library.svg_to_png(svg, ppi=DOTS_PER_INCH)
        drawn = {".svg": svg.encode(), ".png": png}
        for suffix, data in drawn.items():
            path = target / f"{name}{suffix}"
            atomic_write(path, data)
            files.append(path)
    return files
