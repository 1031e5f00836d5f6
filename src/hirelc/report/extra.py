"""The libraries of the extra `report`, imported when a page or a figure is made."""

from __future__ import annotations

from typing import Any

from hirelc.errors import RunError


def templates() -> Any:
    """jinja2.

    :raises RunError: it is not installed
    """
    try:
        import jinja2
    except ImportError as error:
        raise _missing("jinja2") from error
    return jinja2


def converter() -> Any:
    """vl_convert: Vega-Lite for pages and files.

    :raises RunError: it is not installed
    """
    try:
        import vl_convert
    except ImportError as error:
        raise _missing("vl-convert-python") from error
    return vl_convert


def _missing(package: str) -> RunError:
    return RunError(f"reports need {package}, which is not installed: pip install 'hirelc[report]'")


def vega_lite_version() -> str:
    """The version that page and figures are drawn with: the newest that vl-convert carries."""
    versions = converter().get_vegalite_versions()
    return str(max(versions, key=lambda version: tuple(map(int, version.split(".")))))
