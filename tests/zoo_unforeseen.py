"""Patterns that nobody had in mind while the mechanisms were written; each was tried first, and understood afterwards."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_entry import Entry, each, images


class BiasedAttention(nn.Module):
    """Heads that a bias of all layers keeps in place; each can lose channels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.scale = self.head_dim**-0.5
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (part(x).view(b, n, self.heads, self.head_dim).transpose(1, 2) for part in (self.q, self.k, self.v))
        weights = (q @ k.transpose(2, 3) * self.scale + bias).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).reshape(b, n, self.heads * self.head_dim))


class BiasedLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(width), BiasedAttention(width, 3)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attn(self.norm(x), bias)
        return x + self.fc2(self.fc1(x).relu())


class SharedBias(nn.Module):
    """As in T5: one table of relative positions serves the heads of all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.table = nn.Conv2d(3, 24, 4, 4), nn.Embedding(31, 3)
        self.layers = nn.ModuleList(BiasedLayer(24) for _ in range(2))
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        places = torch.arange(x.shape[1])
        bias = self.table(places[:, None] - places + 15).permute(2, 0, 1)
        for layer in self.layers:
            x = layer(x, bias)
        return self.head(x.mean(1))


class TalkingHeads(nn.Module):
    """As CaiT's: a linear layer over the heads before the softmax and one behind it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.before, self.behind = nn.Linear(heads, heads), nn.Linear(heads, heads)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.before((q @ k.transpose(2, 3) * self.scale).permute(0, 2, 3, 1)).softmax(2)
        return self.proj((self.behind(weights).permute(0, 3, 1, 2) @ v).transpose(1, 2).reshape(b, n, c))


class CrossCovariance(nn.Module):
    """As XCiT's: channels attend to channels, so that a head is as wide as its matrix of weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.temperature = heads, nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 4, 1).unbind(0)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(2, 3) * self.temperature).softmax(-1)
        return self.proj((weights @ v).permute(0, 3, 1, 2).reshape(b, n, c))


class ScaledLayer(nn.Module):
    def __init__(self, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.norm, self.attn, self.gamma = nn.LayerNorm(width), attention, nn.Parameter(torch.rand(width))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma * self.attn(self.norm(x))
        return x + self.fc2(self.fc1(x).relu())


class Tokens(nn.Module):
    def __init__(self, attention: type[TalkingHeads] | type[CrossCovariance]) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 4, 4)
        self.layers = nn.Sequential(*(ScaledLayer(attention(24, 3), 24) for _ in range(2)))
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class Standardised(nn.Conv2d):
    """As in networks without norms: the weight is standardised at each call."""

    def forward(self, x: Tensor) -> Tensor:
        spread = self.weight.std((1, 2, 3), keepdim=True) * self.weight[0].numel() ** 0.5
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / (spread + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class NormFree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(Standardised(8, 8, 3, padding=1), nn.SiLU(), Standardised(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1))
            for _ in range(2)
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((2, 3)))


class Exchange(nn.Module):
    """As HRNet's: two resolutions, each refined, then each added to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = self._branch(8), self._branch(16)
        self.up, self.down = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 3, 2, 1)

    @staticmethod
    def _branch(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(width, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, width, 3, padding=1)
        )

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        fine, coarse = self.fine(parts[0]), self.coarse(parts[1])
        return [fine + F.interpolate(self.up(coarse), size=fine.shape[2:]), coarse + self.down(fine)]


class Resolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.stages = nn.Sequential(Exchange(), Exchange())
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        parts = self.stages([x, self.second(x)])
        return self.head(torch.cat([part.mean((2, 3)) for part in parts], 1))


class DualPath(nn.Module):
    """As DPN's: some channels are added, some joined, and both go on as a tuple."""

    def __init__(self, entering: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(entering, 12, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.groups, self.expand = nn.Conv2d(12, 12, 3, padding=1, groups=3), nn.Conv2d(12, 12, 1)

    def forward(self, parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        found = self.expand(self.groups(self.reduce(torch.cat(parts, 1))).relu())
        return parts[0] + found[:, :8], torch.cat([parts[1], found[:, 8:]], 1)


class DualPaths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.stages = nn.ModuleList(DualPath(12 + 4 * i) for i in range(2))
        self.head = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        parts = (x[:, :8], x[:, 8:])
        for stage in self.stages:
            parts = stage(parts)
        return self.head(torch.cat(parts, 1).mean((2, 3)))


TEMPERATURES = ("layers.0.attn.temperature", "layers.1.attn.temperature")
ENTRIES = (
    Entry("shared-bias", SharedBias, images(), 2, each("layers.{}", "attn.q attn.k attn.v fc1")),
    Entry("talking-heads", lambda: Tokens(TalkingHeads), images(), 2, each("layers.{}", "fc1")),
    Entry("cross-covariance", lambda: Tokens(CrossCovariance), images(), 2, each("layers.{}", "fc1"), TEMPERATURES),
    Entry("norm-free", NormFree, images(), 2, ()),
    Entry("resolutions", Resolutions, images(), 2, each("stages.{}", "fine.0 coarse.0")),
    Entry("dual-path", DualPaths, images(), 2, each("stages.{}", "reduce.0 groups")),
)
