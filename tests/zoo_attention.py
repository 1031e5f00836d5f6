"""Transformers: every way in which attention is written, and habits that a trace must survive."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from hirelc.demo_networks import SelfAttention
from zoo_cnn import Basic, Double
from zoo_entry import Entry, each, images, tokens


class TimmAttention(nn.Module):
    """As timm writes it: unbind, head_dim and scale as attributes, an explicit softmax."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.head_dim = dim // heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attention = ((self.q_norm(q) * self.scale) @ self.k_norm(k).transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim))


class SeparateAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, dim // heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (layer(x).view(b, n, self.heads, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(-2, -1) / self.size**0.5).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(b, n, -1))


class TorchAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.mha(x, x, x, need_weights=False)[0]


class Encoder(nn.Module):
    def __init__(self, attention: Callable[[int, int], nn.Module], dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A class token and positions as parameters of the network."""

    def __init__(self, attention: Callable[[int, int], nn.Module], dim: int = 24, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * 0.1)
        self.positions = nn.Parameter(torch.randn(1, 17, dim) * 0.1)
        self.layers = nn.ModuleList(Encoder(attention, dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class TorchEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 4, 48, dropout=0.1, batch_first=True)
        self.embed = nn.Linear(6, 24)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class Twice(nn.Module):
    """One block is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList([Basic(8, 8), Basic(8, 8)])
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in (*self.layers, self.layers[0]):
            x = layer(x)
        return self.head(x.mean((2, 3)))


class Tied(nn.Module):
    """A small language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.layers = nn.ModuleList(Encoder(SelfAttention, 24, 4) for _ in range(2))
        self.head = nn.Linear(24, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Normed(nn.Module):
    """One convolution of each block has a weight computed by weight_norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.Sequential(Double(8, 8), Double(8, 8))
        for layer in self.layers:
            layer.conv1 = parametrizations.weight_norm(layer.conv1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class Branching(nn.Module):
    """Which way is taken depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.Sequential(Basic(8, 8), Basic(8, 8))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.layers(x) if float(x.detach().square().mean()) > 0.0 else self.layers[0](x)
        return self.head(x.mean((2, 3)))


FUSED = each("layers.{}", "attn.qkv mlp.0")
PARTS = ("cls", "positions")
TORCHVISION = ("layers.0.attn.mha.in_proj_weight", "layers.1.attn.mha.in_proj_weight", *each("layers.{}", "mlp.0"))
TORCH = ("encoder.layers.0.self_attn.in_proj_weight", "encoder.layers.1.self_attn.in_proj_weight")

ENTRIES = (
    Entry("vit-fused", lambda: ViT(SelfAttention), images(), 2, FUSED, PARTS),
    Entry("vit-timm", lambda: ViT(TimmAttention), images(), 2, FUSED, PARTS),
    Entry("vit-separate", lambda: ViT(SeparateAttention), images(), 2, each("layers.{}", "attn.q attn.k attn.v mlp.0"), PARTS),
    Entry("vit-torchvision", lambda: ViT(TorchAttention), images(), 2, TORCHVISION, PARTS),
    Entry("torch-encoder", TorchEncoder, images(2, 7, 6), 2, (*TORCH, *each("encoder.layers.{}", "linear1"))),
    Entry("used-twice", Twice, images(), 2, each("layers.{}", "conv1")),
    Entry("tied", Tied, tokens(), 2, FUSED, ("head.weight",)),
    Entry("weight-norm", Normed, images(), 1, (), ("layers.0.conv1.weight", "layers.1.conv1.weight")),
    Entry("branching", Branching, images(), 2, each("layers.{}", "conv1")),
)
