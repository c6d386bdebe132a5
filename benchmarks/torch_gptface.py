"""The PyTorch side of the pre-training benchmark: the same transformer and losses.

Written as PyTorch users write it: `scaled_dot_product_attention`, autocast, a fused
AdamW, the softmax at gathered masked positions only. Parameters have our names, with
the layers taken apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_width: int, eps: float):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps)
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.mlp_norm = nn.LayerNorm(width, eps)
        self.gate, self.up = (nn.Linear(width, mlp_width) for _ in range(2))
        self.down = nn.Linear(mlp_width, width)

    def forward(self, x, mask):
        b, length, width = x.shape

        def heads(y):
            return y.view(b, length, self.heads, -1).transpose(1, 2)

        h = self.attention_norm(x)
        parts = (heads(f(h)) for f in (self.query, self.key, self.value))
        out = F.scaled_dot_product_attention(*parts, attn_mask=mask)
        x = x + self.out(out.transpose(1, 2).reshape(b, length, width))
        h = self.mlp_norm(x)
        gate = F.gelu(self.gate(h), approximate="tanh")
        return x + self.down(gate * self.up(h))


class GPTFace(nn.Module):
    """The network and its losses (preset `paper`, no match token).

    Args:
      config: our `GPTFaceConfig`.
      slots: most image and most text positions that are masked.
    """

    def __init__(self, config, slots: tuple[int, int]):
        super().__init__()
        c = config.transformer
        self.layout, self.vocab, self.slots = config.layout, config.vocab, slots
        self.embedding = nn.Parameter(torch.zeros(self.vocab.rows, c.width))
        self.position = nn.Parameter(torch.zeros(config.max_positions, c.width))
        self.output_bias = nn.Parameter(torch.zeros(self.vocab.rows))
        self.layers = nn.ModuleList(
            Block(c.width, c.num_heads, c.mlp_width, c.norm_eps)
            for _ in range(c.num_layers)
        )
        self.final_norm = nn.LayerNorm(c.width, c.norm_eps)
        self.output_dense = nn.Linear(c.width, c.width)
        self.output_norm = nn.LayerNorm(c.width, c.norm_eps)
        self.itm = nn.Linear(c.width, 2)

    def hidden(self, tokens):
        """int [B,L] -> last states [B,L,D]."""
        mask = (tokens != self.vocab.pad_id)[:, None, None, :]
        x = F.embedding(tokens, self.embedding) + self.position[: tokens.shape[1]]
        if torch.is_autocast_enabled(tokens.device.type):
            x = x.to(torch.get_autocast_dtype(tokens.device.type))
        for layer in self.layers:
            x = layer(x, mask)
        return self.final_norm(x)

    def logits(self, states, start: int = 0, stop: int | None = None):
        """[...,D] -> float32 logits of the ids [start, stop)."""
        x = F.gelu(self.output_dense(states), approximate="tanh")
        logits = F.linear(self.output_norm(x), self.embedding[start:stop]).float()
        ids = torch.arange(start, start + logits.shape[-1], device=logits.device)
        bias = self.output_bias[start:stop]
        return logits + torch.where(ids < self.vocab.size, bias, -1e30)

    def nll(self, hidden, targets, masked, where: slice, slots: int):
        """(summed negative log likelihood, count) of one modality's masked tokens."""
        masked = masked[:, where]
        order = torch.argsort((~masked).int(), dim=1, stable=True)[:, :slots]
        index = order[..., None].expand(-1, -1, hidden.shape[-1])
        states = torch.gather(hidden[:, where], 1, index)
        targets = torch.gather(targets[:, where], 1, order)
        real = torch.gather(masked, 1, order)
        nll = F.cross_entropy(
            self.logits(states).flatten(0, 1), targets.flatten(), reduction="none"
        )
        return (nll * real.flatten()).sum(), real.sum()

    def forward(self, tokens, targets, masked, itm_labels):
        """int [B,L], int [B,L], bool [B,L], int [B] -> the loss."""
        hidden, layout = self.hidden(tokens), self.layout
        image, text = (
            self.nll(hidden, targets, masked, where, slots)
            for where, slots in zip((layout.image_slice, layout.text_slice), self.slots)
        )
        loss = (image[0] + text[0]) / (image[1] + text[1]).clamp(min=1)
        return loss + F.cross_entropy(self.itm(hidden[:, 0]).float(), itm_labels)


def load(model: GPTFace, flat: Mapping[str, np.ndarray], device: str) -> GPTFace:
    """Copies our parameters, {path: array}, into the peer; each is used once."""
    state, left = {}, dict(flat)
    for name in model.state_dict():
        *front, leaf = name.split(".")
        layer = None
        if front[:1] == ["layers"]:
            layer, front = int(front[1]), ["transformer", "layers", _place(front[2])]
            front.append(name.split(".")[2])
        elif front == ["final_norm"]:
            front = ["transformer", "final_norm"]
        elif not front:
            front = ["tokens"]
        norm = front[-1].endswith("norm")
        words = {"weight": "scale" if norm else "kernel"}
        path = "/".join([*(f for f in front if f), words.get(leaf, leaf)])
        value = flat[path]
        left.pop(path, None)
        if layer is not None:
            value = value[layer]
        if path.endswith("kernel"):
            value = value.T
        state[name] = torch.from_numpy(np.array(value, np.float32))
    if left:
        raise ValueError(f"the peer has no place for {', '.join(left)}")
    model.load_state_dict(state)
    return model.to(device)


def _place(name: str) -> str:
    """The module of a block that a part of it lies in; "" for the block itself."""
    if name in ("query", "key", "value", "out"):
        return "attention"
    return "mlp" if name in ("gate", "up", "down") else ""


class Decoding:
    """Guided decoding of one picture at a time, as a PyTorch user writes it: the
    parameters are moved in place and restored.

    Args:
      model: `GPTFace`.
      device: "cpu" or "cuda".
      dtype: "float32", or "bfloat16" by autocast.
      guided: by `ascent_norm`; trust: with the trust region and fusion.
      step_size, kl_max, fusion, k: as `DecodeConfig`.
    """

    def __init__(self, model, device, dtype, *, guided, trust, step_size, kl_max,
                 fusion, k):  # fmt: skip
        self.model, self.device, self.dtype = model.eval(), device, dtype
        self.guided, self.trust, self.step_size = guided, trust, step_size
        self.kl_max, self.fusion, self.k = kl_max, fusion, k
        moved = [*model.layers.parameters(), *model.final_norm.parameters()]
        self.moved = moved
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in moved:
            parameter.requires_grad_(guided)

    def image_log_probs(self, tokens):
        model, where = self.model, self.model.layout.image_slice
        with torch.no_grad():
            states = model.hidden(tokens[None])[0, where]
            logits = model.logits(states, model.vocab.text_size, model.vocab.size)
        return F.log_softmax(logits, -1)

    @torch.no_grad()
    def move(self, change, factor):
        for parameter, part in zip(self.moved, change):
            parameter.add_(part, alpha=factor)

    def scores(self, tokens, is_open):
        """float32 [P,C] under the moved parameters, which are restored."""
        if not self.guided:
            return self.image_log_probs(tokens)
        hidden = self.model.hidden(tokens[None])
        match = F.log_softmax(self.model.itm(hidden[:, 0]).float(), -1)[0, 1]
        slopes = torch.autograd.grad(match, self.moved)
        with torch.no_grad():
            size, norm = (
                torch.sqrt(sum(torch.sum(x.float() ** 2) for x in xs))
                for xs in (self.moved, slopes)
            )
            change = [self.step_size * size / (norm + 1e-12) * g for g in slopes]
        saved = [p.detach().clone() for p in self.moved]
        plain = self.image_log_probs(tokens) if self.trust else None
        self.move(change, 1.0)
        found = self.image_log_probs(tokens)
        if self.trust:
            kl = (found.exp() * (found - plain)).sum(-1)[is_open].mean()
            factor = min(1.0, (self.kl_max / max(float(kl), 1e-12)) ** 0.5)
            self.move(change, factor - 1)
            found = self.image_log_probs(tokens)
            found = F.log_softmax(self.fusion * found + (1 - self.fusion) * plain, -1)
        with torch.no_grad():
            for parameter, value in zip(self.moved, saved):
                parameter.copy_(value)
        return found

    def decode(self, tokens, is_open):
        """int [L], bool [P]: fills the open codes, k an iteration, surest first."""
        tokens, is_open = tokens.clone(), is_open.clone()
        vocab, where = self.model.vocab, self.model.layout.image_slice
        half = self.dtype == "bfloat16"
        with torch.autocast(self.device, torch.bfloat16, enabled=half):
            while is_open.any():
                tokens[where][is_open] = vocab.mask_id
                found = self.scores(tokens, is_open)
                drawn = torch.multinomial(found.exp(), 1)[:, 0]
                sure = found.gather(1, drawn[:, None])[:, 0]
                sure = torch.where(is_open, sure, -torch.inf)
                best = sure.topk(min(self.k, int(is_open.sum()))).indices
                tokens[where.start + best] = drawn[best] + vocab.text_size
                is_open[best] = False
        return tokens


class Training:
    """AdamW with clipping, on one fixed corrupted batch.

    Args:
      model: `GPTFace`.
      batch: tokens, targets, masked, itm_labels as numpy arrays.
      device: "cpu" or "cuda".
      dtype: "float32", or "bfloat16" by autocast.
      compiled: through `torch.compile`.
    """

    def __init__(self, model, batch, device, dtype, compiled=False):
        self.run = torch.compile(model) if compiled else model
        self.model, self.device, self.dtype = model, device, dtype
        self.batch = [torch.from_numpy(np.array(x)).to(device) for x in batch]
        self.batch = [x if x.dtype == torch.bool else x.long() for x in self.batch]
        self.optimizer = torch.optim.AdamW(
            model.parameters(), 1e-4, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01,
            fused=True,
        )  # fmt: skip

    def step(self) -> tuple[float, float]:
        """One update -> (loss, norm of the gradient before clipping)."""
        self.optimizer.zero_grad(set_to_none=True)
        half = self.dtype == "bfloat16"
        with torch.autocast(self.device, torch.bfloat16, enabled=half):
            loss = self.run(*self.batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item(), norm.item()
