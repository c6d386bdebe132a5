"""The PyTorch side of the Talk2Face benchmark: the same network, decoded by a loop.

Written as PyTorch users write it: `scaled_dot_product_attention`, a cache allocated
once and written in place, logits of the codes only, top-k and `multinomial`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-LN with a dense feed-forward."""

    def __init__(self, width: int, heads: int, mlp_width: int, eps: float):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(width, eps) for _ in "ab")
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.up, self.down = nn.Linear(width, mlp_width), nn.Linear(mlp_width, width)

    def forward(self, x, mask, cache=None, start: int = 0):
        """x [B,Q,D]; cache (keys, values) [B,N,L,H], written at `start`."""
        b, length, width = x.shape
        h = self.attention_norm(x)
        query, key, value = (
            f(h).view(b, length, self.heads, -1).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        if cache is not None:
            cache[0][:, :, start : start + length] = key
            cache[1][:, :, start : start + length] = value
            key, value = (x[:, :, : start + length] for x in cache)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(out.transpose(1, 2).reshape(b, length, width))
        h = F.gelu(self.up(self.mlp_norm(x)), approximate="tanh")
        return x + self.down(h)


class PrefixLM(nn.Module):
    """The network.

    Args:
      config: our `PrefixLMConfig`, dense and bare.
    """

    def __init__(self, config):
        super().__init__()
        c = config.transformer
        self.config, self.vocab = config, config.vocab
        self.embedding = nn.Parameter(torch.zeros(self.vocab.rows, c.width))
        self.position = nn.Parameter(torch.zeros(config.max_positions, c.width))
        self.segment = nn.Parameter(torch.zeros(config.segments, c.width))
        self.layers = nn.ModuleList(
            Block(c.width, c.num_heads, c.mlp_width, c.norm_eps)
            for _ in range(c.num_layers)
        )
        self.final_norm = nn.LayerNorm(c.width, c.norm_eps)

    def forward(self, tokens, segment: int, start: int, mask=None, caches=None):
        """Last states [B,Q,D] of tokens at positions from `start` on."""
        stop = start + tokens.shape[1]
        x = F.embedding(tokens, self.embedding) + self.position[start:stop]
        x = x + self.segment[segment]
        for number, layer in enumerate(self.layers):
            x = layer(x, mask, caches and caches[number], start)
        return self.final_norm(x)

    def scores(self, states):
        """[B,D] -> [B,K] of the codes."""
        table = self.embedding[self.vocab.text_size : self.vocab.size]
        return F.linear(states, table).float()


def load(model: PrefixLM, flat: Mapping[str, np.ndarray], device: str) -> PrefixLM:
    """Copies our parameters, {path: array}, into the peer."""
    state = {}
    for name in model.state_dict():
        *front, leaf = name.split(".")
        layer, place = None, ["tokens"]
        if front[:1] == ["layers"]:
            layer, part = int(front[1]), front[2]
            inside = {"query", "key", "value", "out"}
            group = ["attention"] if part in inside else []
            group = ["mlp"] if part in ("up", "down") else group
            place = ["transformer", "layers", *group, part]
        elif front:
            place = ["transformer", *front]
        norm = place[-1].endswith("norm")
        leaf = {"weight": "scale" if norm else "kernel"}.get(leaf, leaf)
        value = flat["/".join([*place, leaf])]
        value = value if layer is None else value[layer]
        value = value.T if leaf == "kernel" else value
        state[name] = torch.from_numpy(np.array(value, np.float32))
    model.load_state_dict(state)
    return model.to(device).eval()


@torch.inference_mode()
def decode(model: PrefixLM, prefix, count: int, top_k: int, seed: int = 0):
    """Codes int [B,T] after prefixes int [B,Q] of one length; top_k 1 is greedy."""
    torch.manual_seed(seed)
    c = model.config.transformer
    batch, used = prefix.shape
    shape = (batch, c.num_heads, used + count, c.width // c.num_heads)
    caches = [
        tuple(torch.zeros(shape, device=prefix.device) for _ in "kv")
        for _ in model.layers
    ]
    states, drawn = model(prefix, 1, 0, caches=caches)[:, -1], []
    for place in range(count):
        ids = draw(model.scores(states), top_k)
        drawn.append(ids)
        tokens = model.vocab.text_size + ids[:, None]
        states = model(tokens, 2, used + place, caches=caches)[:, -1]
    return torch.stack(drawn, 1)


@torch.inference_mode()
def whole(model: PrefixLM, prefix, drawn, top_k: int):
    """One token by running all of prefix [B,Q] and target [B,T], without a cache."""
    used, length = prefix.shape[1], prefix.shape[1] + drawn.shape[1]
    place = torch.arange(length, device=prefix.device)
    mask = (place[None, :] < used) | (place[:, None] >= place[None, :])
    tokens = torch.cat([prefix, model.vocab.text_size + drawn], 1)
    x = F.embedding(tokens, model.embedding) + model.position[:length]
    x = x + model.segment[torch.where(place < used, 1, 2)]
    for layer in model.layers:
        x = layer(x, mask)
    return draw(model.scores(model.final_norm(x)[:, -1]), top_k)


def draw(scores, top_k: int):
    """int [B] of scores [B,K]."""
    best, ids = scores.topk(top_k)
    if top_k == 1:
        return ids[:, 0]
    chosen = torch.multinomial(best.softmax(-1), 1)
    return ids.gather(1, chosen)[:, 0]
