"""The libraries of the extra `report`, imported when a page or a figure is made."""

from __future__ import annotations

import importlib
from typing import Any

from hirelc.errors import RunError


def need(module: str) -> Any:
    """A library of the extra.

    :raises RunError: it is not installed
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RunError(f"reports need {module}, which is not installed: pip install 'hirelc[report]'") from error


def vega_lite_version() -> str:
    """The version that page and figures are drawn with: the newest that vl-convert carries."""
    versions = need("vl_convert").get_vegalite_versions()
    return str(max(versions, key=lambda version: tuple(map(int, version.split(".")))))
