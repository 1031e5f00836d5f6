"""Convolutional networks: the classic patterns, in our own words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_entry import Entry, each, images


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


STAGES = ("layer1.0", "layer1.1", "layer2.0", "layer2.1")
BASIC = tuple(f"{stage}.conv1.weight" for stage in STAGES)
BOTTLENECK = (*BASIC, *(f"{stage}.conv2.weight" for stage in STAGES))
PWCONV = (*each("stage1.{}", "pwconv1"), *each("stage2.{}", "pwconv1"))
INVERTED = each("features.{}", "conv.0.0 conv.1.0", 4)[2:]
SQUEEZED = each("features.{}", "conv.0.0 conv.1.0 conv.2.fc1 conv.2.fc2", 4)[4:]
DOUBLE = ("down1.conv1.weight", "down2.conv1.weight", "middle.conv1.weight", "dec1.conv1.weight", "dec2.conv1.weight")

ENTRIES = (
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
)
