"""A run in a real pseudo-terminal, as its own process. Journal, view, resize and Ctrl-C are real, the training is not."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pyte
import pytest

from hirelc.report.reading import read_run

SCRIPT = """
import sys, time
from pathlib import Path
from hirelc.live.view import LiveReporter
from hirelc.store import RESERVED_FIELDS, RunDirectory
from hirelc.watching import noted
from live.events import folder_of, whole_run

view = LiveReporter()
run = RunDirectory.create(folder_of(Path(sys.argv[1])))
try:
    with noted(run, view, "hirelc resume"):
        for event in whole_run()[:9]:
            run.journal(event["event"], **{name: value for name, value in event.items() if name not in RESERVED_FIELDS})
        with view.stage("measuring candidate 5", 1000) as stage:
            while True:
                time.sleep(0.05)
                stage.advance(1)
except KeyboardInterrupt:
    print("it was interrupted")
"""


@pytest.mark.slow  # it imports torch anew
def test_resized_and_interrupted(tmp_path: Path) -> None:
    out, tests = tmp_path / "run", Path(__file__).parent.parent
    screen = pyte.Screen(100, 34)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if process == 0:
        # without COLUMNS and LINES, which go before the terminal's own size, and which readline sets behind os.environ
        own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background inherits deafness to Ctrl-C
        own |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tests)}
        os.execve(sys.executable, [sys.executable, "-c", SCRIPT, str(out)], own)
    _size(terminal, 100, 34)
    narrow = interrupted = 0.0
    raw, begun = b"", time.monotonic()
    while time.monotonic() - begun < 300:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        try:
            data = os.read(terminal, 65536) if ready else None
        except OSError:  # the other end is closed
            break
        if data == b"":
            break
        raw += data or b""
        stream.feed(data or b"")
        text = "\n".join(screen.display)
        if not narrow and "★" in text:
            narrow = time.monotonic()
            screen.resize(24, 60)
            _size(terminal, 60, 24)
        elif narrow and not interrupted and text.count("╭") == text.count("╰") == 1 and "★" in text:
            interrupted = time.monotonic()  # it was drawn anew, for the new size
            os.write(terminal, b"\x03")
    else:
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    text = "\n".join(line.rstrip() for line in screen.display)
    assert interrupted, text
    assert "interrupted, while in cycle" in text and "it was interrupted" in text, text
    assert text.count("╭") == text.count("╰") == 1, text
    assert raw.rfind(b"\x1b[?25h") > raw.rfind(b"\x1b[?25l")  # the cursor is back
    assert read_run(out).events[-1]["event"] == "interrupted"


def _size(terminal: int, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
