"""How fast Talk2Face draws images: tokens a second, with a cache and without.

    python benchmarks/talk2face.py                                 # this machine's CPU
    python benchmarks/talk2face.py --samples 8 32 --device cuda --compile

Needs torch (extra `bench`). A text is read once and images are drawn after it, top-k
70, all samples of it together. "whole" runs prefix and target for every token, as the
released code does; one token of it is timed at the full length, which each of them
takes in a compiled loop. The peer is the loop that a PyTorch user writes, with a cache
that is allocated once. Both get the same weights and must draw the same codes greedily
before they are timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import timing
from flax import linen as nn
from tables import aligned

from gptface_jax.core import trees
from gptface_jax.core.vocab import JointVocab
from gptface_jax.nn.prefix_lm import PrefixLM, PrefixLMConfig
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.systems.talk2face import decode
from gptface_jax.systems.talk2face.decode import GenerateConfig

try:
    import torch
except ModuleNotFoundError:
    torch = None  # `main` says so
else:
    import torch_talk2face

BASE = PrefixLMConfig(
    transformer=TransformerConfig(feed_forward="dense", remat="none"),
    vocab=JointVocab(codebook_size=1024),
)
# The published model; SPEC 0.3's `mini`; and the one that is trained on a CPU.
SIZES = {
    "tiny": (
        dataclasses.replace(
            BASE,
            transformer=TransformerConfig(2, 32, 2, 64, "dense", remat="none"),
            vocab=JointVocab(text_size=200, codebook_size=96),
            grid=(4, 4),
        ),
        12,
    ),
    "seq2seq_base": (BASE, 64),
    "mini": (
        dataclasses.replace(
            BASE,
            transformer=TransformerConfig(8, 384, 6, 1536, "dense", remat="none"),
            vocab=JointVocab(text_size=2048, codebook_size=1024),
            grid=(8, 8),
        ),
        40,
    ),
    "faces64": (
        dataclasses.replace(
            BASE,
            transformer=TransformerConfig(4, 128, 4, 512, "dense", remat="none"),
            vocab=JointVocab(text_size=1024, codebook_size=1024),
            grid=(8, 8),
        ),
        40,
    ),
}
TOP_K = 70
CHECKED = 16  # codes that must be equal


class Ours:
    """The package's model with random weights, and a text to follow."""

    def __init__(self, size: str, dtype: str):
        config, prefix = SIZES[size]
        transformer = dataclasses.replace(config.transformer, dtype=dtype)
        self.config = dataclasses.replace(
            config, transformer=transformer, embedding_init=0.1
        )
        self.module = PrefixLM(self.config)
        init = functools.partial(self.module.init, method="init_all")
        tokens = jnp.zeros((1, 8), jnp.int32)
        params = jax.jit(init)(jax.random.key(0), tokens)["params"]
        self.params = nn.meta.unbox(params)
        rng = np.random.default_rng(0)
        words = rng.integers(104, self.config.vocab.text_size, (1, prefix))
        words[0, [0, -1]] = self.config.vocab.cls_id, self.config.vocab.sep_id
        self.prefix = words.astype(np.int32)

    def drawn(self, samples: int, **options):
        """Function of no arguments -> codes [S,T]."""
        keys = jax.random.split(jax.random.key(0), (1, samples))
        config = GenerateConfig(**{"top_k": TOP_K, **options})

        def run():
            found = decode.generate(self.module, self.params, self.prefix, config, keys)
            return np.asarray(found.tokens)[0] - self.config.vocab.text_size

        return run

    def whole(self, samples: int):
        """Function of no arguments: one token of the loop without a cache."""
        count = self.config.num_image_tokens
        tokens = np.concatenate([self.prefix, np.full((1, count), 104)], 1)
        tokens = jnp.asarray(np.repeat(tokens, samples, 0), jnp.int32)
        segments = jnp.where(jnp.arange(tokens.shape[1]) < self.prefix.shape[1], 1, 2)
        segments = jnp.broadcast_to(segments, tokens.shape)

        @jax.jit
        def run(params, tokens):
            variables = {"params": params}
            states = self.module.apply(variables, tokens, segments, method="sequence")
            scores = self.module.apply(variables, states[:, -1], method="image_logits")
            best = jax.lax.top_k(scores, TOP_K)[0][:, -1:]
            scores = jnp.where(scores < best, -jnp.inf, scores)
            return jax.random.categorical(jax.random.key(0), scores)

        return lambda: jax.block_until_ready(run(self.params, tokens))


class Theirs:
    """The peer with the same weights."""

    def __init__(self, ours: Ours, device: str, dtype: str, compiled: bool):
        flat = {k: np.asarray(v) for k, v in trees.flatten(ours.params).items()}
        model = torch_talk2face.load(
            torch_talk2face.PrefixLM(ours.config), flat, device
        )
        self.count, self.device = ours.config.num_image_tokens, device
        self.prefix = torch.from_numpy(ours.prefix).long().to(device)
        self.model = torch.compile(model) if compiled else model
        self.cast = functools.partial(
            torch.autocast, device, torch.bfloat16, enabled=dtype == "bfloat16"
        )

    def drawn(self, samples: int, top_k: int = TOP_K, count: int | None = None):
        prefix = self.prefix.repeat(samples, 1)

        def run():
            with self.cast():
                found = torch_talk2face.decode(
                    self.model, prefix, count or self.count, top_k
                )
            return found.cpu().numpy()

        return run

    def whole(self, samples: int):
        prefix = self.prefix.repeat(samples, 1)
        drawn = torch.zeros(samples, self.count, dtype=torch.long, device=self.device)

        def run():
            with self.cast():
                return torch_talk2face.whole(self.model, prefix, drawn, TOP_K).cpu()

        return run


def check(size: str, device: str) -> None:
    """Both draw the same codes greedily, float32.

    Raises:
      SystemExit: they do not.
    """
    ours = Ours(size, "float32")
    torch.set_float32_matmul_precision("highest")
    with jax.default_matmul_precision("highest"):
        mine = ours.drawn(1, temperature=0.0, top_k=0)()[0, :CHECKED]
    other = Theirs(ours, device, "float32", False).drawn(1, 1, CHECKED)()[0]
    if (mine != other).any():
        raise SystemExit(f"greedy codes differ, nothing was timed: {mine} {other}")


def rows(size: str, samples: int, options: argparse.Namespace) -> list[list[str]]:
    ours = Ours(size, options.dtype)
    peer = Theirs(ours, options.device, options.dtype, options.compile)
    spent = timing.interleaved(
        {"ours": ours.drawn(samples), "PyTorch": peer.drawn(samples)},
        options.repeats,
        options.clock,
    )
    alone = timing.interleaved(
        {"ours": ours.whole(samples), "PyTorch": peer.whole(samples)},
        options.repeats,
        options.clock,
    )
    count = ours.config.num_image_tokens
    said = f"{size}, {samples} samples of {count} codes"
    found = [[said, "tokens/s", "x whole", "x PyTorch"]]
    for name in spent:
        rate, slow = samples * count / spent[name], samples / alone[name]
        whole = samples / alone["PyTorch"]
        cached = samples * count / spent["PyTorch"]
        found.append(
            [
                f"{name}, cached",
                f"{rate:.1f}",
                f"{rate / slow:.1f}",
                f"{rate / cached:.2f}",
            ]
        )
        found.append([f"{name}, whole", f"{slow:.2f}", "1.0", f"{slow / whole:.2f}"])
    return found


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES)[1:])
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    timing.needs_torch(torch)
    for size in options.size:
        check(size, options.device)
        for samples in options.samples:
            print(aligned(rows(size, samples, options)) + "\n", flush=True)


if __name__ == "__main__":
    main()
