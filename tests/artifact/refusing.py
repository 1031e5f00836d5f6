"""What tests of refusals share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hirelc.artifact.container import open_container
from hirelc.errors import FormatError

GOLDEN = Path(__file__).parent.parent / "golden"
PRUNED = (GOLDEN / "pruned.hirelc").read_bytes()
REST = (GOLDEN / "rest.hirelc").read_bytes()
ACTIVATIONS = (GOLDEN / "activations.hirelc").read_bytes()
Fields = dict[str, Any]


def refused(data: bytes, message: str) -> FormatError:
    """The error; it is one line, and it names a byte of the file."""
    with pytest.raises(FormatError, match=message) as caught:
        open_container(data)
    error = caught.value
    assert error.offset is not None and 0 <= error.offset <= len(data)
    assert str(error).isprintable() and len(str(error)) < 500
    return error


def put(*path: Any) -> Callable[[Fields], None]:
    """Sets the place that all but the last of the path name to the last."""

    def change(fields: Fields) -> None:
        place: Any = fields
        for key in path[:-2]:
            place = place[key]
        place[path[-2]] = path[-1]

    return change
