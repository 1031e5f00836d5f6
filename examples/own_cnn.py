"""A network and a training loop of your own: train it, compress it to a twelfth, read it back, use it.

python examples/own_cnn.py --out runs/own-cnn
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hirelc
from hirelc.data import load_data


class Block(nn.Module):
    """What repeats becomes a block of the search; the rest is the frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


def make_net() -> nn.Module:
    """The factory: hirelc needs nothing else of your code."""
    width = 24
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Sequential(*(Block(width) for _ in range(3))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("runs/own-cnn"), help="a new folder for the run")
    options.add_argument("--quick", action="store_true", help="only to see it run: few images, hardly any training")
    chosen = options.parse_args()
    epochs, images, cycles, steps = (1, 1500, 1, 32) if chosen.quick else (8, 100_000, 3, 768)

    # 9,000 grey images that ship with hirelc; a DataLoader, a Dataset or (x, y) of your own will do as well
    splits = load_data("demo", train_limit=300 if chosen.quick else None)
    torch.manual_seed(0)
    net = make_net()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for epoch in range(epochs):
        for x, y in splits.train.epoch(seed=epoch, training=True):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    goal = hirelc.Goal(ratio=12, max_drop=1.0)
    config = hirelc.Config(
        search=hirelc.SearchConfig(cycles=cycles, low_level_steps=steps, high_level_steps=steps),
        train=hirelc.TrainConfig(images=images, batch_size=64),
    )
    result = hirelc.compress(net, splits.train, splits.validation, goal, out=chosen.out, test=splits.test, config=config)
    for row in result.rows:
        print(f"{row.name:12} {row.size_bytes:9,} bytes  {row.ratio:5.1f}x  {row.test:.2f} % on the test split")
    print("goal met" if result.shortfall is None else f"short of the goal: {result.shortfall}")

    small = hirelc.load(result.path, make_net)  # an ordinary nn.Module in eval mode, channels really gone
    x, y = next(splits.validation.epoch(seed=0, training=False))
    with torch.no_grad():
        right = (small(x).argmax(1) == y).float().mean()
    print(f"read back from {result.path}: {right:.1%} of {len(y)} validation images are right")


if __name__ == "__main__":
    main()
