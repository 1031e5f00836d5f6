"""An example input for a network that came without one: said by the network, or guessed and tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hirelc.errors import NetworkError
from hirelc.network.calling import call
from hirelc.network.kernels import is_hf_conv1d

SAMPLES = 2
SIDES = (28, 32, 64, 224, 96, 128, 16, 256, 384)  # of square images, in the order they are tried
LENGTHS = (256, 1024, 64, 16_000)  # of one-dimensional signals
TOKENS = 16
SAID = ("example_input", "example_input_array", "dummy_inputs")  # attributes by which a network names its input
TRIED_LAYERS = 3  # the layer that is defined first need not be the first that runs
REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError, AssertionError, NotImplementedError)


@dataclass(frozen=True)
class Example:
    """An input that the network takes.

    :param origin: where it is from, in words for people
    """

    inputs: Any
    origin: str


def example_of_shape(network: nn.Module, shape: tuple[int, ...]) -> Example:
    """Random numbers of a shape, or token ids of that shape where the network looks them up in a table.

    :param shape: of one sample, without the batch
    :raises NetworkError: the forward pass fails on it
    """
    reason = _refusal(network, _numbers(shape))
    if reason is None:
        return Example(_numbers(shape), f"shape {shape}, as given")
    table = next((m for m in network.modules() if isinstance(m, nn.Embedding)), None)
    if table is not None and _refusal(network, _tokens(shape, table.num_embeddings)) is None:
        return Example(_tokens(shape, table.num_embeddings), f"token ids of shape {shape}, as given")
    raise NetworkError(f"the network does not take an input of shape {shape}: {reason}; give another --input-shape")


def guess_example(network: nn.Module) -> Example:
    """The first input that the network takes: its own word for it, its configuration, then shapes that fit its first layer.

    :raises NetworkError: nothing that was tried fits
    """
    tried = []
    for example in _candidates(network):
        if _refusal(network, example.inputs) is None:
            return example
        tried.append(example.origin.removeprefix("guessed: "))
    raise NetworkError(
        "no example input could be guessed"
        + (f" (tried {', '.join(tried)})" if tried else "")
        + ": give the shape of one sample with --input-shape, as in --input-shape 3,32,32, or a data set with --data"
    )


def _candidates(network: nn.Module) -> Iterator[Example]:
    for name in SAID:
        found = getattr(network, name, None)
        if found is not None:
            try:
                yield Example(found() if callable(found) else found, f"the network's own {name}")
            except REFUSALS:
                continue  # it needs arguments that nobody here knows
    yield from _configured(network)
    layers = [m for m in network.modules() if _input_shapes(m)]
    for layer in layers[:TRIED_LAYERS]:
        for inputs, shape in _input_shapes(layer):
            yield Example(inputs, f"guessed: {shape}")


def _configured(network: nn.Module) -> Iterator[Example]:
    """What image sizes and vocabularies in the configurations of well-known libraries stand for."""
    config = getattr(network, "config", None)
    side, vocabulary = _whole(config, "image_size"), _whole(config, "vocab_size")
    channels = _whole(config, "num_channels") or 3
    if side:
        yield Example({"pixel_values": _numbers((channels, side, side))}, f"config: image of {channels}x{side}x{side}")
    if vocabulary:
        length = min(TOKENS, _whole(config, "max_position_embeddings") or TOKENS)
        yield Example({"input_ids": _tokens((length,), vocabulary)}, f"config: {length} token ids")
    default = getattr(network, "default_cfg", None)
    size = default.get("input_size") if isinstance(default, dict) else None
    if isinstance(size, tuple | list) and all(isinstance(n, int) for n in size):
        yield Example(_numbers(tuple(size)), f"default_cfg: shape {tuple(size)}")
    side = _whole(network, "image_size")
    if side:
        yield Example(_numbers((3, side, side)), f"image_size: shape (3, {side}, {side})")


def _input_shapes(layer: nn.Module) -> list[tuple[Any, str]]:
    """Inputs that would fit if this layer came first, each with its description; none where the layer tells nothing."""
    if isinstance(layer, nn.Embedding):
        return [(_tokens((TOKENS,), layer.num_embeddings), f"{TOKENS} token ids")]
    shapes: list[tuple[int, ...]] = []
    if isinstance(layer, nn.Conv2d):
        shapes = [(layer.in_channels, side, side) for side in _sides(layer.in_channels)]
    elif isinstance(layer, nn.Conv1d):
        shapes = [(layer.in_channels, length) for length in LENGTHS]
    elif isinstance(layer, nn.Conv3d):
        shapes = [(layer.in_channels, 16, side, side) for side in (32, 64, 112)]
    elif isinstance(layer, nn.Linear):
        shapes = [(layer.in_features,), (TOKENS, layer.in_features)]
    elif isinstance(layer, nn.RNNBase):
        shapes = [(TOKENS, layer.input_size)]
    elif isinstance(layer, nn.MultiheadAttention):
        shapes = [(TOKENS, layer.embed_dim)]
    elif is_hf_conv1d(layer) and isinstance(layer.weight, Tensor):
        shapes = [(TOKENS, layer.weight.shape[0])]
    return [(_numbers(shape), f"shape {shape}") for shape in shapes]


def _sides(channels: int) -> tuple[int, ...]:
    """Grey images are 28 pixels wide more often than not, coloured ones 32."""
    return SIDES if channels == 1 else tuple(sorted(SIDES, key=lambda side: side != 32))


def _whole(owner: object, name: str) -> int | None:
    value = getattr(owner, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _numbers(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))


def _tokens(shape: tuple[int, ...], vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary, (SAMPLES, *shape), generator=generator)


def _refusal(network: nn.Module, inputs: Any) -> str | None:
    """Why the network does not take an input; None when it does."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            call(network, inputs)
    except REFUSALS as error:
        return " ".join(str(error).split()) or type(error).__name__
    finally:
        network.train(training)
    return None
