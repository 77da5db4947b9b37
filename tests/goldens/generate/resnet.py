"""ResNets of any width under torchvision's parameter names, with the CIFAR and the ImageNet stem.

torchvision fixes the first layer to 64 channels; the goldens need narrow networks. `verify` holds these
definitions to torchvision's own at width 64.
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

BOTTLENECK_EXPANSION = 4


def convolution(cin, cout, kernel, stride=1):
    return nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    def __init__(self, cin, planes, stride, shortcut):
        super().__init__()
        self.conv1, self.bn1 = convolution(cin, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = convolution(planes, planes, 3), nn.BatchNorm2d(planes)
        self.downsample = shortcut
        self.last_batch_norm = "bn2"

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """The stride is on the 3x3 convolution, as in torchvision ("ResNet v1.5")."""

    def __init__(self, cin, planes, stride, shortcut):
        super().__init__()
        cout = planes * BOTTLENECK_EXPANSION
        self.conv1, self.bn1 = convolution(cin, planes, 1), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = convolution(planes, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = convolution(planes, cout, 1), nn.BatchNorm2d(cout)
        self.downsample = shortcut
        self.last_batch_norm = "bn3"

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class OptionA(nn.Module):
    """He et al.'s shortcut without parameters: every second pixel, zeros for the new channels, half on each side."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.stride, self.before, self.after = stride, (cout - cin) // 2, (cout - cin + 1) // 2

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class ResNet(nn.Module):
    def __init__(self, depth, width, stem="cifar", classes=10, option="b"):
        super().__init__()
        self.he_style = depth in (20, 32, 44, 56, 110)  # three stages, no fourth
        blocks = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
        blocks = [(depth - 2) // 6] * 3 if self.he_style else blocks[depth]
        block, expansion = (Bottleneck, BOTTLENECK_EXPANSION) if depth in (50, 101) else (BasicBlock, 1)
        imagenet = stem == "imagenet"
        self.conv1 = convolution(3, width, 7, 2) if imagenet else convolution(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        cin = width
        for stage, count in enumerate(blocks):
            planes, layer = width << stage, []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                cout = planes * expansion
                shortcut = nn.Identity()
                if stride != 1 or cin != cout:
                    if option == "a":
                        shortcut = OptionA(cin, cout, stride)
                    else:
                        shortcut = nn.Sequential(convolution(cin, cout, 1, stride), nn.BatchNorm2d(cout))
                layer.append(block(cin, planes, stride, shortcut))
                cin = cout
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.stages = len(blocks)
        self.fc = nn.Linear(cin, classes)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean(dim=(2, 3)))

    def set_last_gamma(self, value):
        """Scales every residual branch: γ of the last batch norm of each block."""
        with torch.no_grad():
            for module in self.modules():
                if hasattr(module, "last_batch_norm"):
                    getattr(module, module.last_batch_norm).weight.fill_(value)


def verify():
    """The definitions above are torchvision's: same names and shapes, same logits, at width 64."""
    for depth, reference in ((18, torchvision.models.resnet18), (50, torchvision.models.resnet50)):
        theirs = reference(num_classes=10).double().eval()
        ours = ResNet(depth, 64, stem="imagenet").double().eval()
        ours.load_state_dict(theirs.state_dict(), strict=True)
        x = torch.randn(2, 3, 65, 49, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            difference = (ours(x) - theirs(x)).norm() / theirs(x).norm()
        assert difference < 1e-12, f"resnet{depth} differs from torchvision's by {difference:.1e}"
