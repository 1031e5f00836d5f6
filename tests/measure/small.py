"""A small network, its spec, and separable data that it can learn in a second."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hirelc.batches import TensorBatches

CLASSES, SIDE = 4, 6


class Tiny(nn.Module):
    """Two residual perceptron blocks between a stem and a head; BatchNorm and Dropout differ by mode."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.stem = nn.Linear(SIDE, dim)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.BatchNorm1d(2 * dim), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))
            for _ in range(2)
        )
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def samples(count: int, seed: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Clouds around one centre for each class."""
    centres = torch.randn(CLASSES, SIDE, generator=torch.Generator().manual_seed(42)) * 1.5
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    return centres[y] + noise * torch.randn(count, SIDE, generator=generator), y


def data(count: int = 256, seed: int = 0, batch_size: int = 32) -> TensorBatches:
    return TensorBatches(*samples(count, seed), batch_size=batch_size)


def tiny(trained: bool = True) -> Tiny:
    torch.manual_seed(0)
    network = Tiny()
    if trained:
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        for epoch in range(6):
            for x, y in data().epoch(epoch, training=True):
                loss = nn.functional.cross_entropy(network(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.zero_grad()
    return network.eval()
