"""hirelc: joint structured pruning and mixed-precision quantization of any PyTorch network, searched by
hierarchical reinforcement learning.

    goal = hirelc.Goal(ratio=16, max_drop=0.5)
    result = hirelc.compress(model, train=train_loader, val=val_loader, goal=goal, out="runs/mine")
    net = hirelc.load("runs/mine/model.hirelc", make_net)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hirelc.errors import DataError, ExecutionError, FormatError, HirelcError, NetworkError, PolicyError, RunError
from hirelc.policy import Choice, Goal, Granularity, Measurement, NumberType, Policy
from hirelc.version import __version__

if TYPE_CHECKING:
    from hirelc.artifact.inspect import open_file
    from hirelc.config import Config, SearchConfig, TrainConfig
    from hirelc.export.bench import bench
    from hirelc.export.onnx import export_onnx
    from hirelc.models import find_task, load
    from hirelc.network.trace import trace
    from hirelc.picking import extend_front, pick
    from hirelc.pipeline import compress
    from hirelc.results import Result
    from hirelc.resuming import resume
    from hirelc.task import Task

_LAZY = {
    "Config": "hirelc.config",
    "Result": "hirelc.results",
    "SearchConfig": "hirelc.config",
    "Task": "hirelc.task",
    "TrainConfig": "hirelc.config",
    "bench": "hirelc.export.bench",
    "compress": "hirelc.pipeline",
    "export_onnx": "hirelc.export.onnx",
    "extend_front": "hirelc.picking",
    "find_task": "hirelc.models",
    "load": "hirelc.models",
    "open_file": "hirelc.artifact.inspect",
    "pick": "hirelc.picking",
    "resume": "hirelc.resuming",
    "trace": "hirelc.network.trace",
}

__all__ = [
    "Choice",
    "Config",
    "DataError",
    "ExecutionError",
    "FormatError",
    "Goal",
    "Granularity",
    "HirelcError",
    "Measurement",
    "NetworkError",
    "NumberType",
    "Policy",
    "PolicyError",
    "Result",
    "RunError",
    "SearchConfig",
    "Task",
    "TrainConfig",
    "__version__",
    "bench",
    "compress",
    "export_onnx",
    "extend_front",
    "find_task",
    "load",
    "open_file",
    "pick",
    "resume",
    "trace",
]


def __getattr__(name: str) -> Any:
    """Imports what needs torch or the search only when it is asked for."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hirelc' has no attribute {name!r}")
