"""Small networks of our own that look like those people bring, with what hirelc must find in each."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import zoo_hf
import zoo_lookalikes
from zoo_entry import Entry, each, images, tokens


class Basic(nn.Module):
    def __init__(self, entering: int, leaving: int, stride: int = 1, inplace: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving)
        self.relu = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(leaving)
        self.downsample = None
        if stride > 1 or entering != leaving:
            self.downsample = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))

    def forward(self, x: Tensor) -> Tensor:
        way_round = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += way_round
        return self.relu(out)


class Bottleneck(nn.Module):
    def __init__(self, entering: int, width: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        leaving = width * 4
        self.conv1 = nn.Conv2d(entering, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, leaving, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(leaving)
        self.downsample = None
        if stride > 1 or entering != leaving:
            self.downsample = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))

    def forward(self, x: Tensor) -> Tensor:
        way_round = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + way_round)


class ResNet(nn.Module):
    """Stages named layer1, layer2, ... as torchvision does."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        if kind == "basic":
            self.layer1 = nn.Sequential(Basic(8, 8), Basic(8, 8))
            self.layer2 = nn.Sequential(Basic(8, 16, 2), Basic(16, 16))
            leaving = 16
        else:
            groups = 4 if kind == "grouped" else 1
            self.layer1 = nn.Sequential(Bottleneck(8, 8, 1, groups), Bottleneck(32, 8, 1, groups))
            self.layer2 = nn.Sequential(Bottleneck(32, 16, 2, groups), Bottleneck(64, 16, 1, groups))
            leaving = 64
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(leaving, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _conv_bn(entering: int, leaving: int, size: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(entering, leaving, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(leaving)]
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if act else []))


class Squeeze(nn.Module):
    """Squeeze-and-excite with 1x1 convolutions."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, inside, 1)
        self.fc2 = nn.Conv2d(inside, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    def __init__(self, entering: int, leaving: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        inside = entering * 4
        layers: list[nn.Module] = [_conv_bn(entering, inside, 1), _conv_bn(inside, inside, 3, stride, groups=inside)]
        layers += [Squeeze(inside, 4)] if squeeze else []
        self.conv = nn.Sequential(*layers, nn.Conv2d(inside, leaving, 1, bias=False), nn.BatchNorm2d(leaving))
        self.skip = stride == 1 and entering == leaving

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class Mobile(nn.Module):
    def __init__(self, squeeze: bool = False) -> None:
        super().__init__()
        blocks = [Inverted(8, 8, 1, squeeze), Inverted(8, 16, 2, squeeze), Inverted(16, 16, 1, squeeze)]
        self.features = nn.Sequential(_conv_bn(3, 8, 3), *blocks, _conv_bn(16, 32, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class ConvNextBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.stage1 = nn.Sequential(ConvNextBlock(8), ConvNextBlock(8))
        self.down = nn.Conv2d(8, 16, 2, 2)
        self.stage2 = nn.Sequential(ConvNextBlock(16), ConvNextBlock(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage2(self.down(self.stage1(self.stem(x)))).mean((2, 3)))


class DenseLayer(nn.Module):
    def __init__(self, entering: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(entering)
        self.conv1 = nn.Conv2d(entering, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(out)))], 1)


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.Sequential(*[DenseLayer(8 + 4 * i, 4) for i in range(4)])
        self.norm = nn.BatchNorm2d(24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.layers(self.stem(x)))).mean((2, 3)))


class Plain(nn.Module):
    """VGG-like: a chain, and a Linear that reads the flattened map."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for entering, leaving in ((3, 8), (8, 8), (8, 16), (16, 16)):
            layers += [nn.Conv2d(entering, leaving, 3, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] if leaving == entering else []
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(16 * 4 * 4, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class Double(nn.Module):
    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(leaving)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = Double(3, 8), Double(8, 16), Double(16, 16)
        self.up2 = nn.ConvTranspose2d(16, 16, 2, 2)
        self.dec2 = Double(32, 8)
        self.up1 = nn.ConvTranspose2d(8, 8, 2, 2)
        self.dec1 = Double(16, 8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.dec2(torch.cat([self.up2(self.middle(F.max_pool2d(b, 2))), b], 1))
        return self.out(self.dec1(torch.cat([self.up1(c), a], 1)))


class Signal(nn.Module):
    """1-D convolutions over a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(),
            nn.Conv1d(8, 16, 5, 2, 2), nn.BatchNorm1d(16), nn.PReLU(16),
            nn.Conv1d(16, 16, 3, 2, 1), nn.BatchNorm1d(16), nn.ReLU(),
            nn.Conv1d(16, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class FusedAttention(nn.Module):
    """qkv in one projection; the head's size from the reshape."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1))


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
        self.layers = nn.ModuleList(Encoder(FusedAttention, 24, 4) for _ in range(2))
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


STAGES = ("layer1.0", "layer1.1", "layer2.0", "layer2.1")
BASIC = tuple(f"{stage}.conv1.weight" for stage in STAGES)
BOTTLENECK = (*BASIC, *(f"{stage}.conv2.weight" for stage in STAGES))
FUSED = each("layers.{}", "attn.qkv mlp.0")
PARTS = ("cls", "positions")
TORCHVISION = ("layers.0.attn.mha.in_proj_weight", "layers.1.attn.mha.in_proj_weight", *each("layers.{}", "mlp.0"))
TORCH = ("encoder.layers.0.self_attn.in_proj_weight", "encoder.layers.1.self_attn.in_proj_weight")
PWCONV = (*each("stage1.{}", "pwconv1"), *each("stage2.{}", "pwconv1"))
INVERTED = each("features.{}", "conv.0.0 conv.1.0", 4)[2:]
SQUEEZED = each("features.{}", "conv.0.0 conv.1.0 conv.2.fc1 conv.2.fc2", 4)[4:]
DOUBLE = ("down1.conv1.weight", "down2.conv1.weight", "middle.conv1.weight", "dec1.conv1.weight", "dec2.conv1.weight")

OWN = (
    Entry("resnet-basic", lambda: ResNet("basic"), images(), 4, BASIC),
    Entry("resnet-bottleneck", lambda: ResNet("bottleneck"), images(), 4, BOTTLENECK),
    Entry("regnet", lambda: ResNet("grouped"), images(), 4, BOTTLENECK),
    Entry("mobilenet", Mobile, images(), 3, INVERTED),
    Entry("squeeze-excite", lambda: Mobile(True), images(), 3, SQUEEZED),
    Entry("convnext", ConvNext, images(), 4, PWCONV),
    Entry("densenet", Dense, images(), 4, each("layers.{}", "conv1", 4)),
    Entry("vgg", Plain, images(), 2, ("features.2.weight", "features.5.weight")),
    Entry("unet", UNet, images(), 5, DOUBLE),
    Entry("signal", Signal, images(2, 2, 40), 1, ("net.3.weight", "net.6.weight")),
    Entry("vit-fused", lambda: ViT(FusedAttention), images(), 2, FUSED, PARTS),
    Entry("vit-timm", lambda: ViT(TimmAttention), images(), 2, FUSED, PARTS),
    Entry("vit-separate", lambda: ViT(SeparateAttention), images(), 2, each("layers.{}", "attn.q attn.k attn.v mlp.0"), PARTS),
    Entry("vit-torchvision", lambda: ViT(TorchAttention), images(), 2, TORCHVISION, PARTS),
    Entry("torch-encoder", TorchEncoder, images(2, 7, 6), 2, (*TORCH, *each("encoder.layers.{}", "linear1"))),
    Entry("used-twice", Twice, images(), 2, each("layers.{}", "conv1")),
    Entry("tied", Tied, tokens(), 2, FUSED, ("head.weight",)),
    Entry("weight-norm", Normed, images(), 1, (), ("layers.0.conv1.weight", "layers.1.conv1.weight")),
    Entry("branching", Branching, images(), 2, each("layers.{}", "conv1")),
)
ENTRIES = (*OWN, *zoo_lookalikes.ENTRIES, *zoo_hf.ENTRIES)
BY_NAME = {entry.name: entry for entry in ENTRIES}


def build(entry: Entry) -> nn.Module:
    """The network in eval mode with the weights of seed 0, its norms and biases shaken so that none is neutral."""
    torch.manual_seed(0)
    network = entry.factory().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point() and name.endswith(("bias", "running_mean")):
                tensor.uniform_(-0.3, 0.3, generator=generator)
    return network
