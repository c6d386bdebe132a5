"""Several codes an iteration against one after another with a cache (G18).

    python benchmarks/autoregressive.py --size faces64 grid16

Fills a whole grid of codes after a text. The masked decoder commits k codes an
iteration and looks at everything each time, so that it needs ceil(M / k) passes; with
guidance, about four to six times their cost. The other one is what a causal model
would do with the same weights: it reads the text once, keeps keys and values, and draws
M codes in raster order, a position at a time. Both are one compiled loop. FLOPs are
those of the products with the weights and of attention, counted by hand. It is checked
that the cache changes no score. What a causal model would draw is not compared: the
weights are random.
"""

from __future__ import annotations

import argparse
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import timing
from flax import linen as nn
from sizes import SIZES
from tables import aligned

from gptface_jax.core.config import from_mapping
from gptface_jax.nn.transformer import GATES
from gptface_jax.systems.gptface import decode
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface.options import DecodeConfig

# Of the log-probabilities with and without the cache, nats.
LIMIT = 1e-3
MODES = {"masked": "none", "masked, guided": "ascent_norm"}


class Setup:
    """A model with random weights, and texts to follow."""

    def __init__(self, size: str, batch: int):
        self.config = from_mapping(
            gptface_model.GPTFaceConfig, SIZES[size][0], "model."
        )
        self.module, layout = gptface_model.GPTFace(self.config), self.config.layout
        self.vocab, self.codes = self.config.vocab, layout.num_image_tokens
        rng = np.random.default_rng(0)
        words = rng.integers(
            104, self.vocab.text_size, (batch, layout.max_text_tokens), np.int32
        )
        empty = np.zeros((batch, self.codes), np.int32)
        self.tokens = gptface_model.assemble(empty, words, self.config)
        self.prefix = jnp.concatenate(
            [self.tokens[:, :1], words, self.tokens[:, layout.sep_index :][:, :1]], 1
        )
        init = functools.partial(self.module.init, method="init_all")
        key = jax.random.key(0)
        self.params = nn.meta.unbox(jax.jit(init)(key, self.tokens[:1]))["params"]

    def masked(self, guidance: str, k: int):
        """Function of no arguments: the package's decoder."""
        known = np.ones(self.tokens.shape, bool)
        known[:, self.config.layout.image_slice] = False
        options = DecodeConfig(guidance=guidance, k=k, match_token=False)
        given = self.tokens, jnp.asarray(known), options, jax.random.key(1)
        run = functools.partial(decode.decode, self.module, self.params, *given)
        return lambda: jax.block_until_ready(run().tokens)

    def cached(self):
        """Function of no arguments -> (codes [B,M], log-probabilities [B,M,C])."""
        run = jax.jit(functools.partial(autoregressive, self.config))
        given = self.params, self.prefix, jax.random.key(1)
        return lambda: jax.block_until_ready(run(*given))

    def check(self) -> float:
        """Largest difference of the scores to those of one pass over everything."""
        drawn, found = self.cached()()
        ids = jnp.concatenate([self.prefix, self.vocab.image_to_joint(drawn)], 1)
        order = jnp.arange(ids.shape[1])
        causal = (order[:, None] >= order)[None, None]
        given = {"params": self.params}
        hidden = self.module.apply(given, ids, attn_mask=causal)
        hidden = hidden[:, self.prefix.shape[1] - 1 : -1]
        scores = self.module.apply(given, hidden, method="image_logits")
        worst = float(jnp.abs(jax.nn.log_softmax(scores) - found).max())
        if not worst <= LIMIT:
            raise SystemExit(
                f"with the cache the scores differ by {worst:.3g} nats (at most "
                f"{LIMIT:g}): nothing was timed"
            )
        return worst

    def flops(self, queries: int, keys: int) -> int:
        """Of all layers for so many positions that see so many."""
        t = self.config.transformer
        weights = 4 * t.width**2 + 3 * t.width * t.mlp_width
        return 2 * t.num_layers * queries * (weights + 2 * keys * t.width)


def autoregressive(config: gptface_model.GPTFaceConfig, params, prefix, key):
    """Codes in raster order after a prefix int [B,P], with a cache.

    Returns:
      (codes int [B,M], log-probabilities they were drawn from [B,M,C]).
    """
    module, vocab, t = gptface_model.GPTFace(config), config.vocab, config.transformer
    count, (batch, length) = config.layout.num_image_tokens, prefix.shape
    heads = t.num_heads, t.width // t.num_heads
    table, stack = params["tokens"], params["transformer"]
    # A list of layers: a loop over them would copy the cache at every step.
    layers = [
        jax.tree.map(lambda x, i=i: x[i], stack["layers"]) for i in range(t.num_layers)
    ]

    def apply(p, x):
        return x @ p["kernel"] + p["bias"]

    def norm(p, x):
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(
            x.var(-1, keepdims=True) + t.norm_eps
        )
        return p["scale"] * x + p["bias"]

    def layer(at, x, p, keys, values):
        """x [B,Q,D] at positions `at` [Q]; keys and values [B,P+M,N,H] so far."""
        h = norm(p["attention_norm"], x)
        query, key, value = (
            apply(p["attention"][name], h).reshape(*x.shape[:2], *heads)
            for name in ("query", "key", "value")
        )
        keys = jax.lax.dynamic_update_slice_in_dim(keys, key, at[0], 1)
        values = jax.lax.dynamic_update_slice_in_dim(values, value, at[0], 1)
        seen = (jnp.arange(keys.shape[1]) <= at[:, None])[None, None]
        out = jax.nn.dot_product_attention(query, keys, values, mask=seen)
        x = x + apply(p["attention"]["out"], out.reshape(x.shape))
        h = norm(p["mlp_norm"], x)
        gated = GATES[t.gate](apply(p["mlp"]["gate"], h)) * apply(p["mlp"]["up"], h)
        return x + apply(p["mlp"]["down"], gated), (keys, values)

    def forward(ids, start, cache):
        """ids [B,Q] from position `start` on -> scores [B,C] of the next code."""
        at = start + jnp.arange(ids.shape[1])
        x = config.embedding_multiplier * (
            table["embedding"][ids] + table["position"][at]
        )
        grown = []
        for p, kept in zip(layers, cache):
            x, kept = layer(at, x, p, *kept)
            grown.append(kept)
        hidden = norm(stack["final_norm"], x[:, -1])
        scores = module.apply({"params": params}, hidden, method="image_logits")
        return jax.nn.log_softmax(scores), grown

    def step(carry, number):
        scores, cache = carry
        drawn = jax.random.categorical(jax.random.fold_in(key, number), scores)
        ids = vocab.image_to_joint(drawn)[:, None]
        return forward(ids, length + number, cache), (drawn, scores)

    empty = jnp.zeros((batch, length + count, *heads))
    start = forward(prefix, 0, [(empty, empty)] * t.num_layers)
    _, (drawn, scores) = jax.lax.scan(step, start, jnp.arange(count))
    return drawn.T, scores.swapaxes(0, 1)


def rows(size: str, batch: int, k: int, repeats: int, clock: str) -> list[list[str]]:
    setup = Setup(size, batch)
    difference = setup.check()
    sides = {name: setup.masked(mode, k) for name, mode in MODES.items()}
    sides["causal, cached"] = setup.cached()
    spent = timing.interleaved(sides, repeats, clock)
    length, prefix = setup.tokens.shape[1], setup.prefix.shape[1]
    calls = math.ceil(setup.codes / k)
    whole = calls * setup.flops(length, length)
    ours = {"masked": f"{whole / 1e9:.2f}", "masked, guided": "4 to 6 times that"}
    alone = setup.flops(prefix, prefix)
    alone += sum(setup.flops(1, prefix + i + 1) for i in range(setup.codes))
    said = f"{size}, {batch} pictures of {setup.codes} codes"
    found = [[said, "calls", "GFLOP a picture", "seconds", "pictures/s"]]
    for name, seconds in spent.items():
        counted, flops = calls, ours.get(name)
        if flops is None:
            counted, flops = setup.codes + 1, f"{alone / 1e9:.2f}"
        found.append(
            [name, str(counted), flops, f"{seconds:.3f}", f"{batch / seconds:.2f}"]
        )
    return [*found, [f"the cache changes scores by {difference:.1g} nats", *[""] * 4]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["faces64"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall")
    options = parser.parse_args(arguments)
    for size in options.size:
        for batch in options.batch:
            table = rows(size, batch, options.k, options.repeats, options.clock)
            print(aligned(table) + "\n", flush=True)


if __name__ == "__main__":
    main()
