"""Parts of dense decoders. Axes: B batch, C channels, D H W tokens or voxels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.shapes import Triple


class InstanceNorm(nn.InstanceNorm3d):
    """`nn.InstanceNorm3d`, which refuses to train on a single position; there the result is the
    bias."""

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(channels, eps=1e-5, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        if input[0, 0].numel() > 1:
            return super().forward(input)
        centred = input - input
        return centred if self.bias is None else centred + self.bias[:, None, None, None]


class ConvNorm(nn.Module):
    """Convolution, instance norm, leaky ReLU; `conv` and `norm` as nnU-Net names them."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, 3, padding=1)
        self.norm = InstanceNorm(out_channels)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x_BCDHW)), 0.01)


class ResidualBlock(nn.Module):
    """Two 3^3 convolutions with a residual, as the blocks of UNETR (Hatamizadeh et al., 2022);
    norms without weights."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False)
        self.skip = nn.Conv3d(channels, out_channels, 1, bias=False) if channels != out_channels else None
        self.norm = InstanceNorm(out_channels, affine=False)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        out = F.leaky_relu(self.norm(self.conv1(x_BCDHW)), 0.01)
        out = self.norm(self.conv2(out))
        residual = x_BCDHW if self.skip is None else self.norm(self.skip(x_BCDHW))
        return F.leaky_relu(out + residual, 0.01)


class ChannelCalibration(nn.Module):
    """Squeeze to a quarter, refine with a 3^3 convolution, expand, weigh the channels (Hu et al.,
    "Squeeze-and-excitation networks"), add a projection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.reduce = nn.Conv3d(channels, inner, 1)
        self.refine = nn.Conv3d(inner, inner, 3, padding=1)
        self.expand = nn.Conv3d(inner, channels, 1)
        self.squeeze = nn.Linear(channels, inner)
        self.excite = nn.Linear(inner, channels)
        self.residual = nn.Conv3d(channels, channels, 1)
        self.norms = nn.ModuleList(InstanceNorm(c, affine=False) for c in (inner, inner, channels))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        out = F.relu(self.norms[0](self.reduce(x_BCDHW)))
        out = F.relu(self.norms[1](self.refine(out)))
        out = self.norms[2](self.expand(out))
        # After an instance norm the mean over positions is 0, so the weights are squeezed from
        # before it.
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(x_BCDHW.mean((2, 3, 4))))))
        return F.relu(out * weight[:, :, None, None, None] + self.residual(x_BCDHW))


def cropped(x_BCDHW: Tensor, size: Triple | torch.Size) -> Tensor:
    """The first positions along each axis: a transposed convolution of ceil(size / s) tokens ends
    beyond the size."""
    d, h, w = size
    return x_BCDHW[:, :, :d, :h, :w]
