from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hirelc.errors import NetworkError
from hirelc.network.calling import call, first_tensor
from hirelc.network.example import example_of_shape, guess_example


class Fixed(nn.Module):
    """Takes images of one size only, as a vision transformer does."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, 4)
        self.positions = nn.Parameter(torch.zeros(1, 4, side // 4, side // 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.patches(x) + self.positions


class Configured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_size=20, num_channels=3)
        self.patches = nn.Conv2d(3, 4, 4, 4)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.shape[-1] != 20:
            raise ValueError("20 pixels, please")
        return self.patches(pixel_values)


class Telling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(5, 2), nn.Linear(3, 2)

    def example_input(self) -> dict[str, Tensor]:
        return {"first": torch.zeros(2, 5), "second": torch.zeros(2, 3)}

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.wide(first) + self.narrow(second)


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("not\ntoday")


GUESSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "grey images": (lambda: nn.Conv2d(1, 4, 3), (2, 1, 28, 28)),
    "coloured images": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 32, 32)),
    "images of one size": (lambda: Fixed(64), (2, 3, 64, 64)),
    "size in the configuration": (Configured, (2, 3, 20, 20)),
    "signal": (lambda: nn.Conv1d(2, 4, 3), (2, 2, 256)),
    "volume": (lambda: nn.Conv3d(2, 4, 3), (2, 2, 16, 32, 32)),
    "vector": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (2, 12)),
    "sequence": (lambda: nn.TransformerEncoderLayer(8, 2, batch_first=True), (2, 16, 8)),
    "tokens": (lambda: nn.Sequential(nn.Embedding(30, 4), nn.Linear(4, 2)), (2, 16)),
    "the network's word": (Telling, (2, 5)),
}


@pytest.mark.parametrize(("factory", "shape"), GUESSED.values(), ids=GUESSED.keys())
def test_an_input_is_guessed_that_the_network_takes(factory: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    network = factory().train()
    found = guess_example(network)
    assert tuple(first_tensor(found.inputs).shape) == shape
    assert network.training and found.origin
    call(network.eval(), found.inputs)


def test_nothing_fits() -> None:
    with pytest.raises(NetworkError, match=r"no example input could be guessed \(tried .*--input-shape"):
        guess_example(Stubborn())
    with pytest.raises(NetworkError, match="not today"):
        example_of_shape(Stubborn(), (4,))


def test_a_shape_means_token_ids_where_they_are_looked_up() -> None:
    found = example_of_shape(nn.Sequential(nn.Embedding(30, 4), nn.Linear(4, 2)), (7,))
    assert found.inputs.dtype == torch.int64 and tuple(found.inputs.shape) == (2, 7)
    assert tuple(example_of_shape(nn.Conv2d(3, 4, 3), (3, 9, 9)).inputs.shape) == (2, 3, 9, 9)
