"""One self-contained HTML page: content into a template, the drawing library and all numbers inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hirelc.report.charts.chart import Chart
from hirelc.report.content import Content, content
from hirelc.report.decisions import short_name
from hirelc.report.extra import converter, templates, vega_lite_version
from hirelc.report.reading import read_run
from hirelc.report.theme import config
from hirelc.report.timing import State
from hirelc.report.words import duration, shape_words
from hirelc.store import atomic_write, in_use
from hirelc.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "report.html"

SECTIONS = (
    ("result", "Result"),
    ("network", "Where the bits went"),
    ("search", "Search"),
    ("time-and-training", "Training and time"),
    ("kernels", "Kernels"),
    ("untouched", "Untouched and failed"),
    ("setup", "Setup"),
)
KERNEL_COLUMNS = (
    ("No.", True),
    ("Kernel", False),
    ("Block", False),
    ("Shape", False),
    ("Bits", True),
    ("Kept", True),
    ("Type", False),
    ("Granularity", False),
    ("Bytes", True),
    ("Bits/weight", True),
    ("Sensitivity", True),
)
STATES = {
    State.FINISHED: "Finished",
    State.INTERRUPTED: "Interrupted",
    State.DIED: "Died before its end",
    State.RUNNING: "Still running",
    State.SILENT: "Not finished, and silent for long: it may have died",
}


def write_report(folder: str | Path, out: str | Path | None = None, now: datetime | None = None) -> Path:
    """Writes the page of a run, whole or not at all; `out` is RUN/report.html when not given.

    :raises RunError: the folder holds no run, the extra `report` is not installed, or the page cannot be written
    """
    run = read_run(folder)
    path = Path(out) if out is not None else run.folder / PAGE
    atomic_write(path, run_page(content(run, now or datetime.now(UTC), in_use(run.folder))).encode())
    return path


def run_page(found: Content) -> str:
    """The page of a run as text."""
    return render(
        "run.html",
        found.charts,
        {"c": found, "sections": SECTIONS, "kernel_columns": KERNEL_COLUMNS, "state_words": STATES[found.state]},
    )


def render(template: str, charts: Sequence[Chart], values: Mapping[str, Any]) -> str:
    """A template of this folder, filled; names that come from runs are escaped, wherever they stand."""
    jinja2 = templates()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # columns stand in the order they were given
    environment.filters.update(
        count=lambda value: "" if value is None else f"{value:,}",
        fixed=lambda value, digits: "" if value is None else f"{value:.{digits}f}",
        lasted=lambda value: "" if not value else duration(value),
        short=short_name,
        shape=lambda value: "" if value is None else shape_words(tuple(value)),
    )
    library, script = drawing_library(), (TEMPLATES / "page.js").read_text(encoding="utf-8")
    own = {name: jinja2.filters.Markup(text) for name, text in (("library", library), ("script", script), ("style", _style()))}
    text: str = environment.get_template(template).render(
        **values,
        **own,
        charts=charts,
        policy=security_policy((library, script)),
        themes={"light": config(dark=False), "dark": config(dark=True)},
        version=__version__,
    )
    return text


def _style() -> str:
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")


@cache
def drawing_library() -> str:
    """Vega, Vega-Lite and vega-embed in one script, out of vl-convert; nothing is fetched."""
    bundle: str = converter().javascript_bundle(vl_version=vega_lite_version())
    # inside a page a script ends at the first closing tag, wherever it stands
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def security_policy(scripts: Sequence[str]) -> str:
    """Nothing is loaded from anywhere, and only these scripts run: a script smuggled in by a name would not."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {hashes}"
