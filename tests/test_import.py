from __future__ import annotations

import json
import subprocess
import sys

import pytest

LATE = ("gymnasium", "stable_baselines3", "matplotlib", "transformers", "typer", "torch_pruning", "rich")
LIGHT = ("hirelc", "hirelc.config", "hirelc.data", "hirelc.policy", "hirelc.progress", "hirelc.store")


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_no_heavy_library_and_touches_no_gpu(module: str) -> None:
    code = (
        f"import json, sys, {module}\n"
        f"found = [name for name in {LATE!r} if name in sys.modules]\n"
        "torch = sys.modules.get('torch')\n"
        "print(json.dumps([found, bool(torch and torch.cuda.is_initialized())]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], False]
