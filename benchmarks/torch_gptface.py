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

    def nll(self, hidden, targets, masked, where: slice, slots: int):
        """(summed negative log likelihood, count) of one modality's masked tokens."""
        masked = masked[:, where]
        order = torch.argsort((~masked).int(), dim=1, stable=True)[:, :slots]
        index = order[..., None].expand(-1, -1, hidden.shape[-1])
        states = torch.gather(hidden[:, where], 1, index)
        targets = torch.gather(targets[:, where], 1, order)
        real = torch.gather(masked, 1, order)
        x = F.gelu(self.output_dense(states), approximate="tanh")
        logits = F.linear(self.output_norm(x), self.embedding).float()
        ids = torch.arange(self.vocab.rows, device=logits.device)
        bias = torch.where(ids < self.vocab.size, self.output_bias, -1e30)
        nll = F.cross_entropy((logits + bias).flatten(0, 1), targets.flatten(),
                              reduction="none")  # fmt: skip
        return (nll * real.flatten()).sum(), real.sum()

    def forward(self, tokens, targets, masked, itm_labels):
        """int [B,L], int [B,L], bool [B,L], int [B] -> the loss."""
        mask = (tokens != self.vocab.pad_id)[:, None, None, :]
        x = F.embedding(tokens, self.embedding) + self.position[: tokens.shape[1]]
        if torch.is_autocast_enabled(tokens.device.type):
            x = x.to(torch.get_autocast_dtype(tokens.device.type))
        for layer in self.layers:
            x = layer(x, mask)
        hidden = self.final_norm(x)
        layout = self.layout
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
