"""The PyTorch peer of benchmarks/faceptor.py: the same networks, eager.

Written from SPEC part C with PyTorch's own modules, and given the very weights, so that
both sides can be compared number by number before they are timed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gptface_jax.interop import faceptor
from gptface_jax.nn.perception import PerceptionConfig
from gptface_jax.nn.query_decoder import sine_positions


class Block(nn.Module):
    """A layer of CLIP's ViT."""

    def __init__(self, width: int, heads: int, mlp: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, mlp), "c_proj": nn.Linear(mlp, width)}
        )

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class ViT(nn.Module):
    """Pictures to the maps of layers."""

    def __init__(self, config: PerceptionConfig):
        super().__init__()
        vit, t = config.vit, config.vit.transformer
        self.conv1 = nn.Conv2d(3, t.width, vit.patch, vit.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(t.width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + vit.grid**2, t.width))
        self.ln_pre = nn.LayerNorm(t.width)
        blocks = [Block(t.width, t.num_heads, t.mlp_width) for _ in range(t.num_layers)]
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        if vit.output_width:
            self.ln_post = nn.LayerNorm(t.width)
            self.proj = nn.Parameter(torch.zeros(t.width, vit.output_width))

    def forward(self, image):
        x = self.conv1(image)
        _, width, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(x), 1, width)
        table = self.positional_embedding
        side = round((len(table) - 1) ** 0.5)
        if (side, side) != (h, w):
            grid = table[1:].reshape(1, side, side, width).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, (h, w), mode="bicubic", align_corners=False)
            table = torch.cat([table[:1], grid.flatten(2)[0].T])
        x = self.ln_pre(torch.cat([first, x], 1) + table)
        maps = []
        for block in self.transformer["resblocks"]:
            x = block(x)
            maps.append(x[:, 1:].transpose(1, 2).reshape(len(x), width, h, w))
        return maps


class Cross(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)


class Own(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)


class FeedForward(nn.Module):
    def __init__(self, width, mlp):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, mlp), nn.Linear(mlp, width)
        self.norm = nn.LayerNorm(width)


class Decoder(nn.Module):
    """Queries of a task over the maps."""

    def __init__(self, config: PerceptionConfig):
        super().__init__()
        d, width = config.decoder, config.vit.transformer.width
        self.config = d
        asked = [t for t in config.tasks if t.has_queries]
        table = lambda: nn.ModuleDict(  # noqa: E731
            {t.name: nn.Embedding(t.queries, d.width) for t in asked}
        )
        self.query_feat, self.query_embed = table(), table()
        self.input_proj = nn.ModuleList(nn.Conv2d(width, d.width, 1) for _ in d.levels)
        self.level_embed = nn.Embedding(len(d.levels), d.width)
        if d.new_levels:
            new = [nn.Conv2d(width, d.width, 1) for _ in d.new_levels]
            self.new_input_proj = nn.ModuleList(new)
            self.new_level_embed = nn.Embedding(len(d.new_levels), d.width)
        self.adapt_pos2d = nn.Sequential(
            nn.Linear(d.width, d.width), nn.ReLU(), nn.Linear(d.width, d.width)
        )
        stack = lambda make: nn.ModuleList(make() for _ in range(d.layers))  # noqa: E731
        self.transformer_cross_attention_layers = stack(lambda: Cross(d.width, d.heads))
        self.transformer_self_attention_layers = stack(lambda: Own(d.width, d.heads))
        ffn = stack(lambda: FeedForward(d.width, d.mlp_width))
        self.transformer_ffn_layers = ffn

    def memory(self, maps):
        d = self.config
        layers = [*self.input_proj, *(self.new_input_proj if d.new_levels else [])]
        levels = [self.level_embed.weight]
        levels += [self.new_level_embed.weight] if d.new_levels else []
        levels = torch.cat(levels)
        projected = [f(maps[i]) for f, i in zip(layers, (*d.levels, *d.new_levels))]
        grid = projected[0].shape[2:]
        sine = torch.from_numpy(np.array(sine_positions(tuple(grid), d.width)))
        position = self.adapt_pos2d(sine.flatten(0, 1))
        flat = [x.flatten(2).transpose(1, 2) for x in projected]
        keys = [x + position + level for x, level in zip(flat, levels)]
        return projected, torch.cat(keys, 1), torch.cat(flat, 1)

    def forward(self, task, keys, values):
        x = self.query_feat[task].weight.expand(len(keys), -1, -1)
        place = self.query_embed[task].weight
        for cross, own, feed in zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
        ):
            read = cross.multihead_attn(x + place, keys, values, need_weights=False)[0]
            x = cross.norm(x + read)
            at = x + place
            x = own.norm(x + own.self_attn(at, at, x, need_weights=False)[0])
            x = feed.norm(x + feed.linear2(F.relu(feed.linear1(x))))
        return x


class ChannelNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        y = x.permute(0, 2, 3, 1)
        y = F.layer_norm(y, y.shape[-1:], self.weight, self.bias, 1e-6)
        return y.permute(0, 3, 1, 2)


class Peer(nn.Module):
    """Faceptor in evaluation mode; answers as `systems.faceptor.model.apply`."""

    def __init__(self, config: PerceptionConfig):
        super().__init__()
        self.config = config
        width, size = config.vit.transformer.width, config.decoder.width
        self.backbone_module = nn.ModuleDict({"visual": ViT(config)})
        mlp = nn.ModuleDict(
            {"layers": nn.ModuleList(nn.Linear(size, size) for _ in range(3))}
        )
        pixels = nn.Sequential(
            nn.ConvTranspose2d(size, size, 2, 2),
            ChannelNorm(size),
            nn.GELU(),
            nn.ConvTranspose2d(size, size, 2, 2),
        )
        out = config.embedding_width
        feature = nn.ModuleDict(
            {
                "norm": nn.LayerNorm(width),
                "head": nn.Sequential(
                    nn.Linear(width, width, bias=False),
                    nn.BatchNorm1d(width, eps=2e-5),
                    nn.Linear(width, out, bias=False),
                    nn.BatchNorm1d(out, eps=2e-5),
                ),
            }
        )
        parts = {
            "value": nn.ModuleDict({"fc": nn.Linear(size, 1)}),
            "map_v2": nn.ModuleDict({"mask_map": pixels, "mask_embed": mlp}),
            "feature_v2": feature,
        }
        kinds = {t.interpreter for t in config.tasks}
        names = {"value": "value", "map": "map_v2", "feature": "feature_v2"}
        kept = {names[kind]: parts[names[kind]] for kind in kinds}
        self.heads_module = nn.ModuleDict(
            {"decoder": Decoder(config), "interpreters": nn.ModuleDict(kept)}
        )

    @staticmethod
    def of(config: PerceptionConfig, params, state) -> Peer:
        """With these weights; every one of them must fit."""
        peer = Peer(config)
        state_dict = {
            name.removeprefix("module."): torch.from_numpy(np.array(x))
            for name, x in faceptor.to_state_dict(config, params, state).items()
            if ".ln." not in name and "losses_module" not in name
        }
        peer.load_state_dict(state_dict)
        return peer.eval()

    @torch.no_grad()
    def forward(self, image: torch.Tensor, tasks) -> Mapping[str, torch.Tensor]:
        """Answers to pictures [B,3,H,W], normalised."""
        maps, found = self.backbone_module["visual"](image), {}
        decoder = self.heads_module["decoder"]
        projected, keys, values = decoder.memory(maps)
        pixels = None
        for task in tasks:
            found[task], pixels = self._answer(
                task, maps, projected, keys, values, pixels
            )
        return found

    def _answer(self, task, maps, projected, keys, values, pixels):
        entry, parts = self.config.task(task), self.heads_module["interpreters"]
        source = self.config.source_level
        if not entry.has_queries:
            head = parts["feature_v2"]
            x = head["norm"](maps[source].flatten(2).transpose(1, 2))
            return head["head"](x.mean(1)), pixels
        x = self.heads_module["decoder"](task, keys, values)
        if not entry.dense:
            return parts["value"]["fc"](x)[..., 0], pixels
        if pixels is None:
            at = self.config.decoder.levels.index(source)
            pixels = parts["map_v2"]["mask_map"](projected[at])
        layers = parts["map_v2"]["mask_embed"]["layers"]
        x = layers[2](F.relu(layers[1](F.relu(layers[0](x)))))
        maps = torch.einsum("bqd,bdhw->bqhw", x, pixels)
        if entry.output == "parsing":
            side = self.config.dense_resolution
            return F.interpolate(maps, (side, side), mode="bilinear"), pixels
        weights = torch.sigmoid(maps)
        total = weights.sum((2, 3)).clamp(min=1e-6)
        h, w = maps.shape[2:]
        x = (weights * torch.arange(w)).sum((2, 3)) / total
        y = (weights * torch.arange(h)[:, None]).sum((2, 3)) / total
        return torch.stack([(x + 0.5) / w, (y + 0.5) / h], -1), pixels
