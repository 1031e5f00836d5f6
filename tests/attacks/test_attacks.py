"""Files made to hurt a reader: each is refused for its own reason, at once, and with little memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hirelc
from hirelc.cli import app
from hirelc.errors import FormatError

HERE = Path(__file__).parent
REFUSALS: dict[str, str] = json.loads((HERE / "refusals.json").read_text())
SECONDS, BYTES = 2.0, 32 * 2**20


@pytest.mark.parametrize("name", REFUSALS)
def test_attack(name: str) -> None:
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(FormatError, match=REFUSALS[name]) as caught:
            hirelc.open_file(HERE / f"{name}.hirelc")
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < SECONDS
    assert caught.value.offset is not None
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_every_file_here_is_an_attack_and_small() -> None:
    assert {path.stem for path in HERE.glob("*.hirelc")} == set(REFUSALS)
    assert max(path.stat().st_size for path in HERE.glob("*.hirelc")) < 10_000


@pytest.mark.parametrize("name", ["escape-sequence", "deep-name", "ten-gigabyte-kernel"])
def test_the_command_says_it_in_one_line(name: str) -> None:
    done = CliRunner().invoke(app, ["show", str(HERE / f"{name}.hirelc")])
    assert done.exit_code == 2
    assert REFUSALS[name] in " ".join(done.stderr.split()) and "\x1b[2J" not in done.stderr
