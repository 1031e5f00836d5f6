"""Which tensor goes where, seen by watching one forward pass: modules by hooks, everything else by a function mode.

A tensor is known by its identity and version, so that in-place operations give a new one. No architecture names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hirelc.network.kernels import kernel_parameters
from hirelc.network.surgery import ScatterProjection

Key = tuple[int, int]

# module types that are one operation; what they call inside is not looked at
_KINDS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.modules.batchnorm._BatchNorm,), "batch_norm"),
    ((nn.ReLU,), "relu"),
    ((nn.ReLU6,), "relu6"),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Unflatten), "same_values"),
    ((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), "same_values"),
)
_FUNCTIONS = {
    "relu": "relu",
    "relu_": "relu",
    "relu6": "relu6",
    **dict.fromkeys(
        # each value of the result is a value of the input
        (
            *("max_pool1d", "max_pool2d", "max_pool3d", "_max_pool1d", "_max_pool2d", "_max_pool3d", "adaptive_max_pool2d"),
            *("flatten", "reshape", "view", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "unflatten"),
            *("contiguous", "expand", "__getitem__", "chunk", "split", "unbind", "select", "clone", "dropout"),
        ),
        "same_values",
    ),
}


@dataclass(frozen=True)
class Operation:
    """One call: of an atomic module (then `module` is its path) or of a function outside any.

    :param kind: "kernel", "batch_norm", "relu", "relu6", "same_values", or the function's name
    """

    kind: str
    module: str | None
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]


@dataclass
class Flow:
    """What one forward pass shows, in order of time.

    :ivar received: (module, its first floating-point tensor); outer modules come first
    :ivar returned: (module, its result or the first of a tuple); inner modules come first
    """

    operations: list[Operation] = field(default_factory=list)
    received: list[tuple[str, Key]] = field(default_factory=list)
    returned: list[tuple[str, Key]] = field(default_factory=list)
    producer: dict[Key, Operation] = field(default_factory=dict)
    consumers: dict[Key, list[Operation]] = field(default_factory=dict)

    def add(self, operation: Operation) -> None:
        if set(operation.inputs) & set(operation.outputs):
            return  # it gave its input back, as Identity does
        self.operations.append(operation)
        for key in operation.inputs:
            self.consumers.setdefault(key, []).append(operation)
        for key in operation.outputs:
            self.producer[key] = operation

    def sole_consumer(self, key: Key) -> Operation | None:
        found = self.consumers.get(key, [])
        return found[0] if len(found) == 1 else None

    def calls(self, module: str) -> list[Operation]:
        return [operation for operation in self.operations if operation.module == module]

    def batch_norm_behind(self, module: str) -> str | None:
        """The BatchNorm that alone reads the module's result, when the module is called once."""
        calls = self.calls(module)
        if len(calls) != 1 or len(calls[0].outputs) != 1:
            return None
        reader = self.sole_consumer(calls[0].outputs[0])
        if reader is None or reader.kind != "batch_norm" or reader.module is None or len(self.calls(reader.module)) != 1:
            return None
        return reader.module


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.recorder.inside:
            return func(*args, **kwargs)
        before = self.recorder.keys((args, kwargs))
        result = func(*args, **kwargs)
        after = self.recorder.keys(result)
        if before and after:
            name = getattr(func, "__name__", "function")
            kind = "same_values" if name == "pad" and _pads_zeros(*args, **kwargs) else _FUNCTIONS.get(name, name)
            self.recorder.flow.add(Operation(kind, None, before, after))
        return result


def _pads_zeros(_input: Tensor, _pad: object, _mode: str = "constant", value: float | None = None, **_rest: object) -> bool:
    """Whether F.pad, given these arguments, adds nothing but zeros or copies."""
    return not value


class _Recorder:
    def __init__(self) -> None:
        self.flow = Flow()
        self.inside = 0  # depth of atomic modules
        self.kept_alive: list[Tensor] = []  # an address must not be used twice

    def key(self, tensor: Tensor) -> Key:
        self.kept_alive.append(tensor)
        return id(tensor), tensor._version

    def keys(self, values: object) -> tuple[Key, ...]:
        return tuple(self.key(tensor) for tensor in _tensors(values))

    def enter(self, name: str, atomic: bool) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            first = first_float((args, kwargs))
            if not self.inside and first is not None:
                self.flow.received.append((name, self.key(first)))
            if atomic:
                if not self.inside:
                    self.entered = self.keys((args, kwargs))
                self.inside += 1

        return hook

    def leave(self, name: str, kind: str | None) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if kind is not None:
                self.inside -= 1
                if not self.inside:
                    self.flow.add(Operation(kind, name, self.entered, self.keys(output)))
            result = first_output(output)
            if not self.inside and result is not None:
                self.flow.returned.append((name, self.key(result)))

        return hook


def record(network: nn.Module, run: Callable[[], Any]) -> Flow:
    """Runs the network once, in eval mode, and tells which tensor went where.

    :param run: calls the network on an example input
    """
    recorder = _Recorder()
    handles = []
    for name, module in network.named_modules():
        kind = _kind(module)
        handles.append(module.register_forward_pre_hook(recorder.enter(name, kind is not None), with_kwargs=True))
        handles.append(module.register_forward_hook(recorder.leave(name, kind)))
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), _Functions(recorder):
            run()
    finally:
        for handle in handles:
            handle.remove()
        network.train(training)
    return recorder.flow


def first_float(values: object) -> Tensor | None:
    """The first floating-point tensor among arguments."""
    return next((tensor for tensor in _tensors(values) if tensor.is_floating_point()), None)


def first_output(output: object) -> Tensor | None:
    """The tensor that a hook on a module's result can replace."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.is_floating_point() else None


def _kind(module: nn.Module) -> str | None:
    if kernel_parameters(module) or isinstance(module, ScatterProjection):
        return "kernel"
    return next((kind for types, kind in _KINDS if isinstance(module, types)), None)


def _tensors(values: object) -> Iterable[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
