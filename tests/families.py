"""Torchvision's families, small: the smallest of a family, or its own class with fewer and narrower layers."""

from functools import partial

from torch import nn
from torchvision import models
from torchvision.models import convnext, regnet, resnet, swin_transformer
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux

Block = convnext.CNBlockConfig


class NarrowResNet(models.ResNet):
    """Its own blocks with an eighth of the channels."""

    def __init__(self, block, layers, classes, **settings):
        super().__init__(block, layers, **settings)
        self.fc = nn.Linear(self.inplanes, classes)

    def _make_layer(self, block, planes, *rest, **settings):
        return super()._make_layer(block, planes // 8, *rest, **settings)


def narrow_googlenet():
    """Its own blocks with an eighth of the channels, and auxiliary heads as narrow."""

    def conv(inputs, outputs, **settings):
        return BasicConv2d(inputs if inputs == 3 else inputs // 8, outputs // 8, **settings)

    def inception(*widths):
        return Inception(*(n // 8 for n in widths), conv_block=BasicConv2d)

    def head(inputs, classes, **settings):
        aux = InceptionAux(inputs // 8, classes, conv_block=BasicConv2d, **settings)
        aux.fc1, aux.fc2 = nn.Linear(2048, 8), nn.Linear(8, classes)
        return aux

    net = models.GoogLeNet(num_classes=3, init_weights=False, blocks=[conv, inception, head])
    net.fc = nn.Linear(1024 // 8, 3)
    return net


Swin = partial(models.SwinTransformer, [4, 4], 16, [1, 2], [1, 2], [4, 4], num_classes=3)

# The smallest of a family as torchvision has it, or the family's own class with fewer and narrower layers where that
# would take seconds. AlexNet, VGG (its linear layers alone hold 120 million weights), Inception (whose images must be
# larger) and wide ResNets (the class of the others, wider) are too slow for a test: they are on the page architectures.
FAMILIES = {
    "convnext": lambda: models.ConvNeXt([Block(8, 16, 1), Block(16, 32, 1), Block(32, None, 1)], num_classes=3),
    "densenet": lambda: models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=3),
    "efficientnet": lambda: models.EfficientNet(
        [MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(6, 5, 2, 8, 16, 2)], 0.2, num_classes=3
    ),
    "googlenet": narrow_googlenet,
    "maxvit": lambda: models.MaxVit((32, 32), 8, 2, [8, 16], [1, 1], 8, 0.1, num_classes=3),
    "mnasnet": lambda: models.MNASNet(0.1, num_classes=3),
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=3, width_mult=0.25),
    "mobilenet_v3": lambda: models.mobilenet_v3_small(num_classes=3, width_mult=0.25),
    "regnet": lambda: models.RegNet(
        regnet.BlockParams([1, 1, 1, 2], [8, 8, 16, 16], [4] * 4, [1.0] * 4, [2] * 4, 0.25), num_classes=3, stem_width=8
    ),
    "resnet": lambda: NarrowResNet(resnet.BasicBlock, [1, 1, 1, 1], 3),
    "resnext": lambda: NarrowResNet(resnet.Bottleneck, [1, 1, 1, 1], 3, groups=4, width_per_group=32),
    "shufflenet": lambda: models.ShuffleNetV2([2, 2, 2], [8, 8, 16, 32, 32], num_classes=3),
    "squeezenet": lambda: models.squeezenet1_1(num_classes=3),
    "swin": Swin,
    "swin_v2": lambda: Swin(
        block=swin_transformer.SwinTransformerBlockV2, downsample_layer=swin_transformer.PatchMergingV2
    ),
    "vit": lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3),
}
