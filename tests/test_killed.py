"""The benchmark that kills runs with SIGKILL, in short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_killed_runs_end_alike() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--kills", "3", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills in" in done.stdout and "the same end after making room: True" in done.stdout
