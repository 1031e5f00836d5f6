"""A network from `module:factory` or `hf:FOLDER`, its weights from a safetensors file, and whether it fits its data.

Weights are never read from a pickle: a pickle runs code when it is opened.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hirelc.artifact.load import load as artifact_load
from hirelc.batches import Batches, batch_length, first_samples
from hirelc.errors import DataError, NetworkError, RunError
from hirelc.hf_models import PREFIX, hf_factory, hf_network
from hirelc.network.calling import steady_call, to_device, where_it_failed
from hirelc.seeds import stream_seed
from hirelc.task import CLASSIFICATION, Task, named_task

SHOWN_NAMES = 5
WRAPPERS = ("module.", "_orig_mod.", "model.")  # what wrappers put before every name
COUNTERS = "num_batches_tracked"  # of BatchNorm; nothing depends on them here


def find_factory(spec: str, seed: int = 0, task: str | None = None) -> Callable[[], nn.Module]:
    """What `module:attribute` names, as a function that builds the network anew at each call.

    :param spec: the attribute is a function or class called without arguments, or a module; the current folder is searched
        too; or hf:FOLDER, hf:HUB_ID: then only the configuration is read
    :param seed: the random initial weights are a function of it
    :param task: name of the task, where the class of a network of Hugging Face follows from it
    :raises NetworkError: it does not import, is not there, or (when called) fails or does not return an nn.Module
    """
    with _seeded(seed):
        maker = hf_factory(spec.removeprefix(PREFIX), task) if spec.startswith(PREFIX) else _attribute(spec)
    if not isinstance(maker, nn.Module) and not callable(maker):
        raise NetworkError(f"{spec}: {type(maker).__name__} cannot be called: name a function that returns the network")

    def make() -> nn.Module:
        with _seeded(seed):
            network = _made(spec, maker)
        if not isinstance(network, nn.Module):
            raise NetworkError(f"{spec} returns {type(network).__name__}, not a torch.nn.Module: the factory must return it")
        return network

    return make


def load_network(spec: str, weights: str | os.PathLike[str] | None = None, seed: int = 0, task: str | None = None) -> nn.Module:
    """A network in eval mode.

    :param spec: see `find_factory`; of hf:FOLDER the weights are read too
    :param weights: a safetensors file of its state dict; None keeps the weights that the factory or the folder gives
    :raises NetworkError: with the cause and the fix
    """
    if weights is None and spec.startswith(PREFIX):
        return hf_network(spec.removeprefix(PREFIX), task)
    network = find_factory(spec, seed, task)()
    if weights is not None:
        load_weights(network, weights)
    return network.eval()


def load(path: str | Path | bytes, factory: str | Callable[[], nn.Module]) -> nn.Module:
    """The compressed network of a file: an ordinary module in eval mode, physically pruned, on the CPU, float32.

    >>> small = hirelc.load("runs/mine/model.hirelc", make_net)
    >>> small(torch.zeros(5, 8)).shape
    torch.Size([5, 2])

    :param path: a .hirelc file (or its bytes)
    :param factory: builds the original, uncompressed network, whose weights do not matter; or what `--model` takes:
        "mypkg.nets:make_net", or "hf:FOLDER", of which only config.json is read
    :raises FormatError: the file is damaged, or the factory builds another network
    :raises NetworkError: there is no such factory
    """
    return artifact_load(path, find_factory(factory) if isinstance(factory, str) else factory)


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copies the tensors of a safetensors file into a network, which must have the same names and shapes.

    A name may be missing where another name holds the same tensor (tied weights), and so may BatchNorm's counters.

    :raises NetworkError: no such file, a pickle, a damaged file, names or shapes that differ, values that are not finite
    """
    stored = _read_weights(Path(path))
    state = network.state_dict()
    missing = [n for n in state if n not in stored and not n.endswith(COUNTERS) and not _tied_to(state, n, stored)]
    unexpected = [name for name in stored if name not in state and not name.endswith(COUNTERS)]
    shapes = [
        f"{n} {tuple(stored[n].shape)} in the file, {tuple(tensor.shape)} in the network"
        for n, tensor in state.items()
        if n in stored and stored[n].shape != tensor.shape
    ]
    parts = [
        f"{title} ({len(names)}): {_shortened(names)}"
        for title, names in (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
        if names
    ]
    if parts:
        raise NetworkError(f"{path}: the weights do not fit the network: {'; '.join(parts)}{_prefix_hint(stored, state)}")
    parameters = dict(network.named_parameters(remove_duplicate=False))
    unsound = [n for n, t in stored.items() if n in parameters and not bool(torch.isfinite(t).all())]
    if unsound:
        raise NetworkError(f"{path}: NaN or infinite weights ({len(unsound)} tensors): {_shortened(unsound)}")
    network.load_state_dict({n: t for n, t in stored.items() if n in state}, strict=False)


def check_fits(network: nn.Module, data: Batches, device: str = "cpu", task: Task = CLASSIFICATION) -> int:
    """Runs the network on two samples; returns how many classes it tells apart.

    :raises DataError: the forward pass fails on the data
    :raises NetworkError: what it gives for each sample depends on how many there are
    :raises RunError: the device cannot be used
    """
    two, three = (first_samples(data, count)[0] for count in (2, 3))
    outputs, others = (_outputs(network, inputs, device, task) for inputs in (two, three))
    if outputs.shape[1:] != others.shape[1:]:
        raise NetworkError(
            f"{len(outputs)} samples give outputs of shape {tuple(outputs.shape)}, {len(others)} samples "
            f"{tuple(others.shape)}: that is no answer to each sample; give a task whose unpack picks one (--task module:name)"
        )
    return int(outputs.shape[task.class_dim]) if outputs.dim() > 1 else 1


def check_task(network: nn.Module, data: Batches, device: str, task: Task) -> None:
    """Tries loss and metric on two samples.

    :raises DataError: they fail, or the loss is no finite scalar
    """
    inputs, targets = first_samples(data, 2)
    outputs = _outputs(network, inputs, device, task)
    targets = to_device(targets, device) if task.label is None else task.label(outputs, None)
    shapes = f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
    try:
        loss = task.loss(outputs, targets)
        task.meter().add(outputs, targets)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"the loss or metric of the task ({task.name}) fails on {shapes}: {error}: do they fit?") from error
    if not isinstance(loss, Tensor) or loss.dim() or not bool(torch.isfinite(loss)):
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) and loss.dim() else repr(loss)
        raise DataError(f"the loss of the task ({task.name}) must be one finite number, it is {found} on {shapes}")


def settled(task: Task, network: nn.Module, data: Batches, device: str = "cpu") -> Task:
    """The task itself, or the one that it becomes for this network (see `Task.settle`)."""
    return task if task.settle is None else task.settle(_answer(network, first_samples(data, 2)[0], device))


def answers(network: nn.Module, task: Task, device: str = "cpu") -> Callable[[Any], Tensor]:
    """What a network gives as targets for inputs, for a task that has no others."""

    @torch.no_grad()
    def label(inputs: Any) -> Tensor:
        if task.label is None:
            raise RunError(f"the task ({task.name}) has targets of its own")
        return task.label(task.outputs(steady_call(network.eval(), to_device(inputs, device))), None)

    return label


def find_task(spec: str) -> Task:
    """A task by its name, or by `module:attribute` (a `hirelc.Task`, or a function that returns one).

    >>> hirelc.find_task("segmentation").name
    'pixel accuracy'

    :raises RunError: there is no such task
    """
    if ":" not in spec:
        return named_task(spec)
    found = _attribute(spec)
    task = found() if callable(found) and not isinstance(found, Task) else found
    if not isinstance(task, Task):
        raise RunError(f"{spec} is a {type(task).__name__}: name a hirelc.Task, or a function that returns one")
    return task


def _outputs(network: nn.Module, inputs: Any, device: str, task: Task) -> Tensor:
    """What the task sees of the network's answer.

    :raises NetworkError: `unpack` fails, or gives no tensor with one row for each sample
    """
    raw = _answer(network, inputs, device)
    try:
        outputs: object = task.outputs(raw)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise NetworkError(
            f"the unpack of the task ({task.name}) fails on a {type(raw).__name__}: {type(error).__name__}: {error}: "
            "look at what the network returns"
        ) from error
    samples = batch_length(inputs)
    if not isinstance(outputs, Tensor) or not outputs.dim() or len(outputs) != samples:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise NetworkError(
            f"{samples} samples give outputs of shape {shape}: the first dimension must be the batch (see Task.unpack)"
        )
    return outputs


def _answer(network: nn.Module, inputs: Any, device: str) -> Any:
    place(network, device).eval()
    try:
        with torch.no_grad():
            return steady_call(network, to_device(inputs, device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise DataError(
            f"the network fails on samples of shape {_shapes(inputs)}{where_it_failed(network, error)}: {error}: "
            "do data and network fit?"
        ) from error


def place(network: nn.Module, device: str) -> nn.Module:
    """The network, moved to a device.

    :raises RunError: there is no such device, or it cannot be used
    """
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"the device {device!r} cannot be used: {error}: give --device cpu") from error


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's randomness by the seed inside, and as if nothing had been drawn outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "factory"))
        yield


def _attribute(spec: str) -> object:
    module_name, colon, attribute = spec.partition(":")
    if not colon or not module_name or not attribute:
        raise NetworkError(f"{spec!r} is no module:factory: give for instance mypkg.nets:make_net")
    if module_name.endswith(".py") or os.sep in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace(os.sep, ".")
        raise NetworkError(f"{spec!r} names a file: give the module, as Python imports it: {dotted}:{attribute}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the module's own code runs here: it may raise anything
        raise NetworkError(f"{spec}: {module_name} does not import: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [name for name in vars(found) if not name.startswith("_")], n=3)
            meant = f"; did you mean {' or '.join(close)}?" if close else ": name a function of it that returns the network"
            raise NetworkError(f"{spec}: {module_name} has no {part!r}{meant}")
        found = getattr(found, part)
    return found


def _made(spec: str, maker: Any) -> object:
    if isinstance(maker, nn.Module):
        return copy.deepcopy(maker)
    try:
        return maker()
    except (Exception, SystemExit) as error:  # the user's own code runs here: it may raise anything
        raise NetworkError(f"{spec} fails when called without arguments: {type(error).__name__}: {error}") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise NetworkError(f"{path}: no such file: give the network's weights as a .safetensors file")
    if path.suffix != ".safetensors":
        raise NetworkError(
            f"{path}: weights are read from .safetensors files only, for a pickle (.pt, .pth, .bin) runs code when it is "
            "opened; convert it where you trust it: safetensors.torch.save_file(net.state_dict(), 'net.safetensors')"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"{path}: not a readable safetensors file: {error}: save it again") from error


def _tied_to(state: Mapping[str, Tensor], name: str, stored: Mapping[str, Tensor]) -> bool:
    """Whether the file holds this tensor under another of its names."""
    tensor = state[name]
    key = (tensor.data_ptr(), tensor.shape)
    return tensor.numel() > 0 and any((t.data_ptr(), t.shape) == key and other in stored for other, t in state.items())


def _prefix_hint(stored: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in stored) and any(name.removeprefix(prefix) in state for name in stored):
            return f"; every name in the file begins with {prefix!r}: save the state dict of the network inside that wrapper"
    return ""


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _shapes(inputs: Any) -> str:
    if isinstance(inputs, Tensor):
        return str(tuple(inputs.shape[1:]))
    pairs = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    return ", ".join(f"{key}: {tuple(value.shape[1:])}" for key, value in pairs)
