"""Block patterns of torchvision and timm, and awkward habits of other people's networks, as small networks of our own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_entry import Entry, each, images, tokens


class Permute(nn.Module):
    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)


class WindowAttention(nn.Module):
    """As torchvision's Swin: the projections' weights are handed to a function, a table adds a bias per head."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.num_heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.5)
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None, :] + window - 1
        self.register_buffer("relative_position_index", (apart[0] * (2 * window - 1) + apart[1]).flatten())

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        size = self.window
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(b, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)
        qkv = F.linear(x, self.qkv.weight, self.qkv.bias)
        qkv = qkv.reshape(x.shape[0], x.shape[1], 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * (c // self.num_heads) ** -0.5, qkv[1], qkv[2]
        scores = q @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index].view(size**2, size**2, -1)
        mixed = (scores + bias.permute(2, 0, 1)).softmax(-1) @ v
        x = F.linear(mixed.transpose(1, 2).reshape(x.shape[0], size * size, -1), self.proj.weight, self.proj.bias)
        x = x.view(b, h // size, w // size, size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(x, (self.shift, self.shift), (1, 2))


class SwinBlock(nn.Module):
    def __init__(self, dim: int, heads: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, 4, shift)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(0.0), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 12, 2, 2), Permute(0, 2, 3, 1), nn.LayerNorm(12)),
            nn.Sequential(SwinBlock(12, 2, 0), SwinBlock(12, 2, 2)),
            PatchMerging(12),
            nn.Sequential(SwinBlock(24, 4, 0), SwinBlock(24, 4, 0)),
        )
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.features(x)).mean((1, 2)))


class CNBlock(nn.Module):
    """As torchvision's ConvNeXt: permutes inside a Sequential, a layer scale behind it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(dim, dim, 7, padding=3, groups=dim), Permute(0, 2, 3, 1), nn.LayerNorm(dim),
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim), Permute(0, 3, 1, 2),
        )  # fmt: skip
        self.layer_scale = nn.Parameter(torch.full((dim, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer_scale * self.block(x)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TorchvisionConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 2, 2), LayerNorm2d(8)),
            nn.Sequential(CNBlock(8), CNBlock(8)),
            nn.Sequential(LayerNorm2d(8), nn.Conv2d(8, 16, 2, 2)),
            nn.Sequential(CNBlock(16), CNBlock(16)),
        )
        self.classifier = nn.Sequential(LayerNorm2d(16), nn.Flatten(1), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1))


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(dim) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class NormedAttention(nn.Module):
    """As timm's: fused qkv, norms of query and key over the head's channels, a switch between two ways to compute."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.scale = self.head_dim**-0.5
        self.fused_attn = True
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm, self.k_norm = nn.LayerNorm(self.head_dim), nn.LayerNorm(self.head_dim)
        self.attn_drop, self.norm, self.proj_drop = nn.Dropout(0.0), nn.Identity(), nn.Dropout(0.0)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = self.attn_drop((q * self.scale @ k.transpose(-2, -1)).softmax(-1)) @ v
        x = x.transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim)
        return self.proj_drop(self.proj(self.norm(x)))


class TimmBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.ls1, self.ls2 = NormedAttention(dim, heads), LayerScale(dim), LayerScale(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 2 * dim), "fc2": nn.Linear(2 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))


class TimmViT(nn.Module):
    """Register tokens, positions added before the class token, mean of the patches at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 24, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 24) * 0.1)
        self.reg_token = nn.Parameter(torch.randn(1, 2, 24) * 0.1)
        self.pos_embed = nn.Parameter(torch.randn(1, 16, 24) * 0.1)
        self.blocks = nn.Sequential(*(TimmBlock(24, 4) for _ in range(2)))
        self.fc_norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        first = (self.cls_token.expand(len(x), -1, -1), self.reg_token.expand(len(x), -1, -1))
        return self.head(self.fc_norm(self.blocks(torch.cat([*first, x], 1))[:, 3:].mean(1)))


class MixerBlock(nn.Module):
    """Mixes positions, then channels."""

    def __init__(self, positions: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(nn.Linear(positions, 10), nn.GELU(), nn.Linear(10, positions))
        self.channels = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(16, 12), MixerBlock(16, 12))
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


class GatedBlock(nn.Module):
    """Gate and value in one projection, as Phi-3 and ModernBERT have them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.gate_up, self.down = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(self.norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Outside(nn.Module):
    """Buffers, a parameter of the network itself, and a weight that other code than its module reads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.layers = nn.ModuleList(GatedBlock(12) for _ in range(2))
        self.temperature = nn.Parameter(torch.tensor(0.7))
        self.mix = nn.Parameter(torch.randn(12, 12) * 0.3)
        self.register_buffer("positions", torch.randn(1, 9, 12) * 0.3)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 12), persistent=False)
        self.head = nn.Linear(12, 10)

    def forward(self, ids: Tensor) -> Tensor:
        x = (self.embed(ids) + self.positions) * self.scale
        for layer in self.layers:
            x = layer(x)
        x = x @ self.mix + x
        return (self.head(x.mean(1)) + x[:, 0] @ self.head.weight.T) * self.temperature


class Recurrent(nn.Module):
    """An LSTM between linear layers: stored, not compressed."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.layers = nn.ModuleList(GatedBlock(8) for _ in range(2))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lstm(x)[0]
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, -1])


SWIN = (*each("features.1.{}", "mlp.0"), *each("features.3.{}", "mlp.0"))
TABLES = tuple(f"features.{stage}.{i}.attn.relative_position_bias_table" for stage in (1, 3) for i in (0, 1))
SCALES = tuple(f"features.{stage}.{i}.layer_scale" for stage in (1, 3) for i in (0, 1))
CN = (*each("features.1.{}", "block.3"), *each("features.3.{}", "block.3"))
TIMM_PARTS = ("cls_token", "reg_token", "pos_embed")

ENTRIES = (
    Entry("torchvision-swin", Swin, images(), 4, SWIN, TABLES),
    Entry("torchvision-convnext", TorchvisionConvNext, images(), 4, CN, SCALES),
    Entry("timm-vit", TimmViT, images(), 2, each("blocks.{}", "attn.qkv mlp.fc1"), TIMM_PARTS),
    Entry("mixer", Mixer, images(), 2, each("blocks.{}", "tokens.0 channels.0")),
    Entry("outside", Outside, tokens(), 2, each("layers.{}", "gate_up"), ("mix",)),
    Entry("lstm", Recurrent, images(2, 7, 6), 2, each("layers.{}", "gate_up"), ("lstm.weight_ih_l0", "lstm.weight_hh_l0")),
)
