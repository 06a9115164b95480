"""From the network that trains to the one that is exported: the same function in fewer operations."""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from waferlens.models.depth_cnn import UnpoolingConvolution
from waferlens.models.package_fast import PackageFastNet
from waferlens.models.strided import RepConvolution, StridedNet
from waferlens.models.wafer_fast import WaferFastNet


def _fold_batch_norms(sequence: nn.Sequential) -> None:
    """Folds each batch norm into the convolution before it."""
    for (name, first), (following, second) in pairwise(list(sequence.named_children())):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            setattr(sequence, name, fuse_conv_bn_eval(first, second))
            setattr(sequence, following, nn.Identity())


def _unfolded(convolution: nn.Conv2d, unshuffle: int) -> nn.Conv2d:
    """A 3x3 or 1x1 convolution behind a fold, as one strided convolution over the pixels."""
    side, channels = convolution.kernel_size[0], convolution.in_channels // unshuffle**2
    plain = nn.Conv2d(
        channels, convolution.out_channels, side * unshuffle, stride=unshuffle, padding=(side // 2) * unshuffle
    )
    plain.weight.data.copy_(nn.functional.pixel_shuffle(convolution.weight.data, unshuffle))
    plain.bias.data.copy_(convolution.bias.data)  # type: ignore[union-attr]
    return plain


def fuse(network: nn.Module) -> nn.Module:
    """A copy for evaluation: every group of parallel branches as its one convolution, unpooling and convolution as one
    transposed convolution, batch norms folded.

    The fold of pixels disappears as well: the first convolution takes the pixels directly.
    """
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RepConvolution | UnpoolingConvolution):
                setattr(parent, name, child.fused())
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    for module in network.modules():
        if isinstance(module, StridedNet) and isinstance(module.fold, nn.PixelUnshuffle):
            module.enter[0][0] = _unfolded(module.enter[0][0], module.fold.downscale_factor)
            module.fold = nn.Identity()
        if isinstance(module, WaferFastNet) and isinstance(module.fold, nn.PixelUnshuffle):
            entrance = module.down[0][0]
            entrance.first[0] = _unfolded(entrance.first[0], module.unshuffle)
            if isinstance(entrance.beside, nn.Identity):  # as wide as the folded pixels: these go past
                entrance.beside = nn.PixelUnshuffle(module.unshuffle)
            else:
                entrance.beside[0] = _unfolded(entrance.beside[0], module.unshuffle)
            module.fold = nn.Identity()
        if isinstance(module, PackageFastNet):
            module.traces = None  # said in training only
            if isinstance(module.fold, nn.PixelUnshuffle):
                module.enter[0][0] = _unfolded(module.enter[0][0], module.fold.downscale_factor)
                module.fold = nn.Identity()
    return network
