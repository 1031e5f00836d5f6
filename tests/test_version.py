from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from hirelc.version import __version__

ROOT = Path(__file__).parents[1]


def test_the_newest_heading_of_the_changelog_is_this_version() -> None:
    headings = re.findall(r"^## (?:\[Unreleased\] )?\[?(\d[^\]\s]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings and headings[0] == __version__


def test_the_installed_version_is_this_version() -> None:
    assert metadata.version("hirelc") == __version__
