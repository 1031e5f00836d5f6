"""Block patterns of the convolutional networks of torchvision and timm, as small networks of our own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_entry import Entry, each, images


class BatchNormAct(nn.BatchNorm2d):
    """timm's: the activation is inside."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


class ConvSame(nn.Conv2d):
    """timm's: padding as TensorFlow pads, from the size of what comes in."""

    def forward(self, x: Tensor) -> Tensor:
        wanted = (-(x.shape[-1] // -self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - x.shape[-1]
        pad = max(wanted, 0)
        x = F.pad(x, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class EfficientBlock(nn.Module):
    """As timm's EfficientNet: norm and activation in one, squeeze-and-excite between depthwise and projection."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        inside = 4 * entering
        self.conv_pw, self.bn1 = nn.Conv2d(entering, inside, 1, bias=False), BatchNormAct(inside)
        self.conv_dw = ConvSame(inside, inside, 3, stride, groups=inside, bias=False)
        self.bn2 = BatchNormAct(inside)
        self.conv_reduce, self.conv_expand = nn.Conv2d(inside, 6, 1), nn.Conv2d(6, inside, 1)
        self.conv_pwl, self.bn3 = nn.Conv2d(inside, leaving, 1, bias=False), nn.BatchNorm2d(leaving)
        self.skip = stride == 1 and entering == leaving

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        y = y * F.hardsigmoid(self.conv_expand(F.relu(self.conv_reduce(y.mean((2, 3), keepdim=True)))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.skip else y


class TimmEfficientNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = ConvSame(3, 8, 3, 2, bias=False), BatchNormAct(8)
        self.blocks = nn.Sequential(EfficientBlock(8, 8, 1), EfficientBlock(8, 12, 2), EfficientBlock(12, 12, 1))
        self.classifier = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.bn1(self.conv_stem(x))).mean((2, 3)))


class RegNetYBlock(nn.Module):
    """Grouped 3x3 convolution and squeeze-and-excite: whole groups can go."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.b = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, groups=groups, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.fc1, self.fc2 = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)
        self.c = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        y = y * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(y, 1)))))
        return F.relu(x + self.c(y))


class RegNetY(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.trunk = nn.Sequential(RegNetYBlock(16, 4), RegNetYBlock(16, 2))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.trunk(self.stem(x)).mean((2, 3)))


class Fire(nn.Module):
    """As torchvision's SqueezeNet."""

    def __init__(self, entering: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(entering, squeeze, 1)
        self.act = nn.ReLU(inplace=True)
        self.expand1x1, self.expand3x3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.squeeze(x))
        return torch.cat([self.act(self.expand1x1(x)), self.act(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(inplace=True), Fire(8, 6, 8), nn.MaxPool2d(2), Fire(16, 6, 10)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(20, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class Shuffle(nn.Module):
    """As torchvision's ShuffleNetV2: half of the channels pass by, then both halves are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        passing, through = x.chunk(2, 1)
        b, c, h, w = x.shape
        joined = torch.cat([passing, self.branch(through)], 1)
        return joined.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.stage = nn.Sequential(Shuffle(16), Shuffle(16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stage(self.stem(x)).mean((2, 3)))


ENTRIES = (
    Entry("timm-efficientnet", TimmEfficientNet, images(), 3, each("blocks.{}", "conv_pw conv_dw conv_reduce conv_expand", 3)),
    Entry("regnet-y", RegNetY, images(), 2, each("trunk.{}", "a.0 b.0 fc1 fc2")),
    Entry("squeezenet", SqueezeNet, images(), 2, ("features.2.squeeze.weight", "features.4.squeeze.weight")),
    Entry("shufflenet", ShuffleNet, images(), 2, each("stage.{}", "branch.0 branch.3")),
)
