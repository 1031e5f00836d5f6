"""onnxruntime sessions on the CPU, and arrays in and out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from hirelc.export.tracing import input_arrays

QUIET = 3  # errors only


def session(model: bytes | Path, threads: int | None = None, profile: str | None = None) -> Any:
    """An onnxruntime session on the CPU.

    :param threads: of each operator; by default as many as torch uses
    :param profile: prefix of a profile to be written
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def feed(running: Any, inputs: Any) -> dict[str, NDArray[Any]]:
    """Inputs as a session wants them; those that the graph does not read are left out."""
    arrays = input_arrays(inputs)
    wanted = {i.name for i in running.get_inputs()}
    if isinstance(inputs, dict):
        return {name: tensor.numpy() for name, tensor in inputs.items() if name in wanted}
    names = [i.name for i in running.get_inputs()]
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in zip(names, arrays, strict=False)}


def run(running: Any, inputs: Any) -> Tensor:
    """The logits that a session gives."""
    return torch.from_numpy(running.run(["logits"], feed(running, inputs))[0])
