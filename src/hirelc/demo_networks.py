"""The two networks of the demo: plain PyTorch, for 28x28 grey images and ten classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10
IMAGE = (1, 28, 28)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a way around them, which is a 1x1 convolution where shapes differ."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(leaving)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or entering != leaving:
            self.shortcut = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inside)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """Seven residual blocks in three stages of widths 16, 32 and 64; 248,954 parameters, 23.8 million MACs.

    :param depths: residual blocks in each stage; the width doubles and the image halves from stage to stage
    """

    def __init__(self, width: int = 16, depths: tuple[int, ...] = (2, 2, 3), classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(IMAGE[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks: list[nn.Module] = []
        entering = width
        for stage, depth in enumerate(depths):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(ResidualBlock(entering, width * 2**stage, stride))
                entering = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(entering, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 1, 28, 28)."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        # -1: the size of a head may shrink when it is pruned.
        query, key, value = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))  # type: ignore[no-any-return]


class TransformerLayer(nn.Module):
    """Attention and a two-layer perceptron, each after a LayerNorm and added to the stream."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Four layers of width 64 over 7x7 tokens, averaged at the end; 222,666 parameters, 10.6 million MACs in kernels."""

    def __init__(self, dim: int = 64, depth: int = 4, heads: int = 4, hidden: int = 256, classes: int = CLASSES) -> None:
        super().__init__()
        # Two strided convolutions instead of one large patch: a small transformer learns much faster from few images.
        self.stem = nn.Sequential(
            nn.Conv2d(IMAGE[0], dim // 2, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1)
        )
        tokens = (IMAGE[1] // 4) * (IMAGE[2] // 4)
        self.positions = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.layers = nn.Sequential(*[TransformerLayer(dim, heads, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 1, 28, 28)."""
        x = self.stem(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(x)).mean(1))  # type: ignore[no-any-return]


def residual_net() -> ResidualNet:
    """The demo's residual CNN, untrained."""
    return ResidualNet()


def vision_transformer() -> VisionTransformer:
    """The demo's vision transformer, untrained."""
    return VisionTransformer()
