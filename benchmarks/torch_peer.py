"""The PyTorch side of the benchmarks: the same networks, written for PyTorch.

Learnt from CompVis/taming-transformers, whose parameter names are kept, so that our
parameters fit by `gptface_jax.interop.taming.their_name`. Where PyTorch has a faster
form today than that code used, the peer takes it: channels-last memory, fused
attention, no graph for the discriminator's fresh forward pass, `torch.compile`.

Pictures come in as float [B,3,H,W] in [-1,1], channels-last in memory.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def group_norm(width: int, groups: int) -> nn.GroupNorm:
    """GroupNorm with the largest group count <= `groups` that divides `width`."""
    while width % groups:
        groups -= 1
    return nn.GroupNorm(groups, width, eps=1e-6)


class ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width: int, groups: int):
        super().__init__()
        self.norm1 = group_norm(width_in, groups)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = group_norm(width, groups)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if width_in != width:
            self.nin_shortcut = nn.Conv2d(width_in, width, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class SpatialAttention(nn.Module):
    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = group_norm(width, groups)
        self.q, self.k, self.v, self.proj_out = (
            nn.Conv2d(width, width, 1) for _ in range(4)
        )

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x)
        query, key, value = (  # each [B,1,h*w,C]
            part(y).permute(0, 2, 3, 1).reshape(b, 1, h * w, c)
            for part in (self.q, self.k, self.v)
        )
        out = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(out.reshape(b, h, w, c).permute(0, 3, 1, 2))


class Downsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks, each followed by attention if asked; then a change of size."""

    def __init__(self, width_in, width, count, attention, groups, **resample):
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(width if j else width_in, width, groups) for j in range(count)
        )
        number = count if attention else 0
        self.attn = nn.ModuleList(
            SpatialAttention(width, groups) for _ in range(number)
        )
        self.resample = next(iter(resample), None)
        for name, module in resample.items():
            self.add_module(name, module(width))

    def forward(self, x):
        for j, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[j](x)
        return getattr(self, self.resample)(x) if self.resample else x


class Middle(nn.Module):
    def __init__(self, width: int, groups: int):
        super().__init__()
        self.block_1 = ResidualBlock(width, width, groups)
        self.attn_1 = SpatialAttention(width, groups)
        self.block_2 = ResidualBlock(width, width, groups)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


def to_patches(x, side: int):
    """[B,C,H,W] -> [B,side*side*C,H/side,W/side]; pixels first, unlike PyTorch's."""
    if side == 1:
        return x
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // side, side, w // side, side).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, -1, h // side, w // side)


def from_patches(x, side: int):
    """The inverse of `to_patches`."""
    if side == 1:
        return x
    b, _, h, w = x.shape
    x = x.reshape(b, side, side, -1, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(b, -1, h * side, w * side)


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        last, width_in = len(c.widths) - 1, c.first_width
        self.patch = c.patch
        self.conv_in = nn.Conv2d(c.in_channels * c.patch**2, width_in, 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(c.widths):
            attention = (c.first_side >> i) in c.attn_resolutions
            resample = {"downsample": Downsample} if i < last else {}
            self.down.append(
                Level(
                    width_in, width, c.num_res_blocks, attention, c.groups, **resample
                )
            )
            width_in = width
        self.mid = Middle(width_in, c.groups)
        self.norm_out = group_norm(width_in, c.groups)
        self.conv_out = nn.Conv2d(width_in, c.z_channels, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(to_patches(x, self.patch))
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        width_in, levels, self.patch = c.widths[-1], [], c.patch
        self.conv_in = nn.Conv2d(c.z_channels, width_in, 3, padding=1)
        self.mid = Middle(width_in, c.groups)
        for i, width in reversed(list(enumerate(c.widths))):
            attention = (c.first_side >> i) in c.attn_resolutions
            resample = {"upsample": Upsample} if i else {}
            count = c.num_res_blocks + 1
            levels.append(
                Level(width_in, width, count, attention, c.groups, **resample)
            )
            width_in = width
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = group_norm(width_in, c.groups)
        self.conv_out = nn.Conv2d(width_in, c.out_channels * c.patch**2, 3, padding=1)

    def features(self, z):
        """What the last convolution reads."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return F.silu(self.norm_out(x))

    def pixels(self, features):
        """[B,C,h,w] -> [B,3,h*patch,w*patch]."""
        return from_patches(self.conv_out(features), self.patch)

    def forward(self, z):
        return self.pixels(self.features(z))


class VQGAN(nn.Module):
    """The network of a `gptface_jax.nn.vqgan.VQGANConfig`."""

    def __init__(self, c):
        super().__init__()
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.quant_conv = nn.Conv2d(c.z_channels, c.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(c.embed_dim, c.z_channels, 1)
        self.quantize = nn.ModuleDict(
            {"embedding": nn.Embedding(c.codebook_size, c.embed_dim)}
        )

    def latents(self, image):
        """[B,3,H,W] -> z_e float32 [B,h,w,C]."""
        return self.quant_conv(self.encoder(image)).permute(0, 2, 3, 1).float()

    def nearest(self, z_e):
        """z_e [B,h,w,C] -> image_ids [B,h,w]; |z|^2 does not change the order."""
        codebook = self.quantize["embedding"].weight
        with torch.autocast(z_e.device.type, enabled=False):
            cross = z_e.reshape(-1, z_e.shape[-1]) @ codebook.T
            distance = codebook.square().sum(1) - 2 * cross
        return distance.argmin(1).reshape(z_e.shape[:-1])

    def encode(self, image):
        """[B,3,H,W] -> image_ids [B,h,w]."""
        return self.nearest(self.latents(image))

    def decoder_input(self, z_q):
        """z_q [B,h,w,C] -> [B,z_channels,h,w]."""
        return self.post_quant_conv(z_q.permute(0, 3, 1, 2))

    def decode(self, image_ids):
        """image_ids [B,h,w] -> [B,3,H,W]."""
        z_q = self.quantize["embedding"](image_ids)
        return self.decoder(self.decoder_input(z_q)).float()

    def forward(self, image):
        """[B,3,H,W] -> (what the last convolution reads, z_e, z_q)."""
        z_e = self.latents(image)
        z_q = self.quantize["embedding"](self.nearest(z_e.detach()))
        passed = z_e + (z_q - z_e).detach()
        return self.decoder.features(self.decoder_input(passed)), z_e, z_q


class Discriminator(nn.Module):
    """PatchGAN: [B,3,H,W] -> logits [B,1,h,w]."""

    def __init__(self, channels: int = 64, num_layers: int = 3):
        super().__init__()
        widths = [channels * min(2**i, 8) for i in range(num_layers + 1)]
        self.conv = nn.ModuleList([nn.Conv2d(3, channels, 4, 2, 1)])
        self.norm = nn.ModuleDict()
        for i in range(1, num_layers + 1):
            stride = 2 if i < num_layers else 1
            self.conv.append(
                nn.Conv2d(widths[i - 1], widths[i], 4, stride, 1, bias=False)
            )
            self.norm[str(i)] = nn.BatchNorm2d(widths[i])
        self.conv.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, image):
        first, *middle, last = self.conv
        x = F.leaky_relu(first(image), 0.2)
        for conv, norm in zip(middle, self.norm.values()):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return last(x).float()


class Conv(nn.Conv2d):
    """A convolution, padded as TensorFlow does: the odd zero is behind."""

    def forward(self, x):
        shape, window, stride = x.shape[2:], self.kernel_size[0], self.stride[0]
        total = [max((-(-n // stride) - 1) * stride + window - n, 0) for n in shape]
        (top, left), (bottom, right) = ([(t + i) // 2 for t in total] for i in (0, 1))
        return super().forward(F.pad(x, (left, right, top, bottom)))


class Bottleneck(nn.Module):
    """A block of EfficientNet-lite0, its norms folded in."""

    def __init__(self, width_in, width, window, stride, expansion):
        super().__init__()
        wide = width_in * expansion
        if expansion > 1:
            self.expand = Conv(width_in, wide, 1)
        self.depthwise = Conv(wide, wide, window, stride, groups=wide)
        self.project = Conv(wide, width, 1)

    def forward(self, x):
        y = F.relu6(self.expand(x)) if hasattr(self, "expand") else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """Two pictures in [-1,1] -> the distance [B] of their features.

    Args:
      stages, stem, head, depths: those of `gptface_jax.nn.efficientnet`.
    """

    def __init__(self, stages, stem: int, head: int, depths):
        super().__init__()
        self.depths, self.stem = depths, Conv(3, stem, 3, 2)
        self.stages = nn.ModuleList()
        width_in = stem
        for blocks, window, stride, expansion, width in stages:
            stage = nn.ModuleList()
            for i in range(blocks):
                step = 1 if i else stride
                stage.append(Bottleneck(width_in, width, window, step, expansion))
                width_in = width
            self.stages.append(stage)
        self.head = Conv(width_in, head, 1)  # of what distances do not need

    def features(self, image):
        x, taps = F.relu6(self.stem((127.5 * image + 0.5) / 128)), []
        for number, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if number in self.depths:
                taps.append(x)
        return taps

    def forward(self, image, other):
        total = 0.0
        pairs = zip(self.features(image), self.features(other))
        for a, b in pairs:
            a, b = (F.normalize(x.float(), dim=1, eps=1e-10) for x in (a, b))
            total = total + (a - b).square().sum(1).mean((1, 2))
        return total / len(self.depths)


class LPIPS(nn.Module):
    """Zhang et al. 2018 on VGG-16: two pictures in [-1,1] -> distance [B]."""

    stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

    def __init__(self):
        super().__init__()
        widths = [3, *(width for stage in self.stages for width in stage)]
        self.conv = nn.ModuleList(
            nn.Conv2d(*pair, 3, padding=1) for pair in itertools.pairwise(widths)
        )
        self.lin = nn.ParameterList(torch.ones(stage[-1]) for stage in self.stages)
        shift, scale = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
        for name, values in (("shift", shift), ("scale", scale)):
            buffer = torch.tensor(values).reshape(1, 3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def features(self, image):
        """Activations after relu1_2, 2_2, 3_3, 4_3 and 5_3."""
        x, convs, taps = (image - self.shift) / self.scale, iter(self.conv), []
        for number, stage in enumerate(self.stages):
            x = F.max_pool2d(x, 2) if number else x
            for _ in stage:
                x = F.relu(next(convs)(x))
            taps.append(x)
        return taps

    def forward(self, image, other):
        total = 0.0
        for a, b, weight in zip(self.features(image), self.features(other), self.lin):
            a, b = (F.normalize(x.float(), dim=1, eps=1e-10) for x in (a, b))
            total = total + torch.einsum("bchw,c->b", (a - b).square(), weight) / (
                a.shape[2] * a.shape[3]
            )
        return total


def load(module: nn.Module, arrays: Mapping[str, Any], device: str) -> nn.Module:
    """Fills the parameters from our arrays (convolutions HWIO), named as theirs.

    Raises:
      RuntimeError: a missing, an unused or a misshapen one.
    """
    stored = {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}
    for name, tensor in stored.items():
        if tensor.ndim == 3:  # of each channel alone
            tensor = tensor[:, :, None]
        if tensor.ndim == 4:
            stored[name] = tensor.permute(3, 2, 0, 1)
    statistics = dict(module.named_buffers())
    module.load_state_dict(
        {k: v for k, v in module.state_dict().items() if k in statistics} | stored
    )
    return module.to(device, memory_format=torch.channels_last)


def picture(image: np.ndarray, device: str) -> torch.Tensor:
    """float32 [B,H,W,3] -> [B,3,H,W], channels-last in memory."""
    moved = torch.from_numpy(np.array(image)).to(device).permute(0, 3, 1, 2)
    return moved.contiguous(memory_format=torch.channels_last)


def precision(device: str, dtype: str) -> contextlib.AbstractContextManager:
    """Automatic mixed precision for "bfloat16", nothing for "float32"."""
    chosen = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    return torch.autocast(device, chosen, enabled=dtype != "float32")
