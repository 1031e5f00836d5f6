"""How a network is called and what comes out, whatever the shape of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hirelc.batches import map_inputs
from hirelc.errors import NetworkError
from hirelc.task import logits_of as logits_of


def call(network: nn.Module, inputs: Any, state: Mapping[str, Tensor] | None = None) -> Any:
    """Calls the network: a dict as keywords, a tuple or list as positions, a tensor alone.

    :param state: tensors to use in place of the network's own, by name
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(inputs, Mapping):
        kwargs = dict(inputs)
    elif isinstance(inputs, tuple | list):
        args = tuple(inputs)
    else:
        args = (inputs,)
    if state is None:
        return network(*args, **kwargs)
    return functional_call(network, dict(state), args, kwargs)


def steady_call(network: nn.Module, inputs: Any, state: Mapping[str, Tensor] | None = None, seed: int = 0) -> Any:
    """As `call`, with whatever random numbers the network draws a function of the seed: two calls can be compared.

    (Some draw in eval mode too: masked autoencoders hide patches, others sample the patches that they look at.)
    """
    device = first_tensor(inputs).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return call(network, inputs, state)


def where_it_failed(network: nn.Module, error: BaseException) -> str:
    """Which module's forward pass an error was raised in, as words to go behind "fails"; nothing where no module's was.

    The innermost frame that belongs to one of the network's modules tells.
    """
    paths = {id(module): path for path, module in network.named_modules() if path}
    found, trace = "", error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        found = paths.get(id(owner), found) if isinstance(owner, nn.Module) else found
        trace = trace.tb_next
    return f" in {found} ({type(network.get_submodule(found)).__name__})" if found else ""


def to_device(inputs: Any, device: torch.device | str) -> Any:
    """Moves every tensor of the inputs."""
    return map_inputs(inputs, lambda tensor: tensor.to(device))


def first_tensor(inputs: Any) -> Tensor:
    """The first tensor among the inputs; its first dimension is the batch."""
    values = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple | list) else (inputs,)
    for value in values:
        if isinstance(value, Tensor):
            return value
    raise NetworkError("the example input holds no tensor")


def head(inputs: Any, count: int) -> Any:
    """The first `count` samples of a batch of inputs."""
    return map_inputs(inputs, lambda tensor: tensor[:count])
