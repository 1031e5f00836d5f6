"""What commands leave in typer's context for errors and Ctrl-C to find."""

from __future__ import annotations

VERBOSE, FOLDER = "hirelc.verbose", "hirelc.folder"
