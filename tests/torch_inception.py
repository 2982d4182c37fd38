"""FID's Inception V3 in PyTorch, written from its description, with random weights."""

import functools

import torch
from torch import nn
from torch.nn import functional


class Unit(nn.Module):
    """Convolution, BatchNorm, ReLU; `pad` is what is added on either side, height first."""

    def __init__(self, inputs, outputs, kernel, stride=1, pad=(0, 0)):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


def unit(inputs, outputs, height, width, stride=1):
    pad = (height // 2, width // 2) if stride == 1 else (0, 0)
    return Unit(inputs, outputs, (height, width), stride, pad)


def mean_around(x):
    """Sums of 3 x 3 over how many places of these exist."""
    ones = torch.ones_like(x[:1, :1])
    return functional.avg_pool2d(x, 3, 1, 1) / functional.avg_pool2d(ones, 3, 1, 1)


def largest_around(x):
    return functional.max_pool2d(functional.pad(x, (1, 1, 1, 1), value=float("-inf")), 3, 1)


def halved(x):
    return functional.max_pool2d(x, 3, 2)


class A(nn.Module):
    def __init__(self, inputs, pooled):
        super().__init__()
        self.branch1x1 = unit(inputs, 64, 1, 1)
        self.branch5x5_1, self.branch5x5_2 = unit(inputs, 48, 1, 1), unit(48, 64, 5, 5)
        self.branch3x3dbl_1 = unit(inputs, 64, 1, 1)
        self.branch3x3dbl_2 = unit(64, 96, 3, 3)
        self.branch3x3dbl_3 = unit(96, 96, 3, 3)
        self.branch_pool = unit(inputs, pooled, 1, 1)

    def forward(self, x):
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(mean_around(x))], 1)


class B(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch3x3 = unit(288, 384, 3, 3, 2)
        self.branch3x3dbl_1 = unit(288, 64, 1, 1)
        self.branch3x3dbl_2 = unit(64, 96, 3, 3)
        self.branch3x3dbl_3 = unit(96, 96, 3, 3, 2)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, halved(x)], 1)


class C(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.branch1x1 = unit(768, 192, 1, 1)
        self.branch7x7_1 = unit(768, c, 1, 1)
        self.branch7x7_2, self.branch7x7_3 = unit(c, c, 1, 7), unit(c, 192, 7, 1)
        self.branch7x7dbl_1 = unit(768, c, 1, 1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = unit(c, c, 7, 1), unit(c, c, 1, 7)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = unit(c, c, 7, 1), unit(c, 192, 1, 7)
        self.branch_pool = unit(768, 192, 1, 1)

    def forward(self, x):
        seven, double = x, x
        for i in range(1, 4):
            seven = getattr(self, f"branch7x7_{i}")(seven)
        for i in range(1, 6):
            double = getattr(self, f"branch7x7dbl_{i}")(double)
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(mean_around(x))], 1)


class D(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = unit(768, 192, 1, 1), unit(192, 320, 3, 3, 2)
        self.branch7x7x3_1 = unit(768, 192, 1, 1)
        self.branch7x7x3_2, self.branch7x7x3_3 = unit(192, 192, 1, 7), unit(192, 192, 7, 1)
        self.branch7x7x3_4 = unit(192, 192, 3, 3, 2)

    def forward(self, x):
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, halved(x)], 1)


class E(nn.Module):
    def __init__(self, inputs, pool):
        super().__init__()
        self.branch1x1 = unit(inputs, 320, 1, 1)
        self.branch3x3_1 = unit(inputs, 384, 1, 1)
        self.branch3x3_2a, self.branch3x3_2b = unit(384, 384, 1, 3), unit(384, 384, 3, 1)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = unit(inputs, 448, 1, 1), unit(448, 384, 3, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = unit(384, 384, 1, 3), unit(384, 384, 3, 1)
        self.branch_pool = unit(inputs, 192, 1, 1)
        self.pool = pool

    def forward(self, x):
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([*parts, self.branch_pool(self.pool(x))], 1)


class Network(nn.Module):
    """Images [B, 3, H, W] in [0, 1] -> features [B, 2048]; also has the classes' layer."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, 2)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = Unit(32, 32, 3), Unit(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Unit(64, 80, 1), Unit(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192, 32), A(256, 64), A(288, 64)
        self.Mixed_6a, self.Mixed_6b, self.Mixed_6c = B(), C(128), C(160)
        self.Mixed_6d, self.Mixed_6e, self.Mixed_7a = C(160), C(192), D()
        self.Mixed_7b, self.Mixed_7c = E(1280, mean_around), E(2048, largest_around)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        x = 2 * functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
        stem = (self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3, halved)
        stem += (self.Conv2d_3b_1x1, self.Conv2d_4a_3x3, halved)
        mixed = [getattr(self, f"Mixed_{name}") for name in ("5b", "5c", "5d", "6a", "6b", "6c")]
        mixed += [self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c]
        return functools.reduce(lambda x, layer: layer(x), (*stem, *mixed), x).mean((2, 3))


@torch.no_grad()
def network(seed):
    """With random weights, everywhere of a scale that keeps features from dying out."""
    draw = torch.Generator().manual_seed(seed)
    net = Network().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=draw)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.8, 1.2, generator=draw)
            module.running_var.uniform_(0.7, 1.3, generator=draw)
            for values in (module.bias, module.running_mean):
                values.uniform_(-0.2, 0.2, generator=draw)
    return net
