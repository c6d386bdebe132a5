"""How fast is guided decoding: edits a second, forwards an iteration, memory.

    python benchmarks/decode.py                                    # this machine's CPU
    python benchmarks/decode.py --size pretrain_base --batch 1 8 32 64 --device cuda \\
        --dtype bfloat16

Needs torch (extra `bench`). Ours decodes a batch in one jitted loop, every sample
guided by its own gradient; the peer is the loop a PyTorch user writes, a picture at a
time with parameters moved and restored. Both get the same weights and cores and must
agree on the guided scores of an iteration before they are timed. A forward is one
unguided prediction of the same batch. Memory is what XLA plans for temporaries.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pretrain
import timing
from flax import linen as nn
from sizes import SIZES
from tables import aligned

from gptface_jax.core import files, trees
from gptface_jax.core.config import from_mapping
from gptface_jax.systems.gptface import decode, predict
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface.options import DecodeConfig

try:
    import torch
except ModuleNotFoundError:
    torch = None  # `main` says so
else:
    import torch_gptface

PLAIN = {"kl_max": 0.0, "fusion": 1.0}
# name -> options of the decoder
MODES = {
    "unguided": {"guidance": "none"},
    "explicit": {"form": "explicit", **PLAIN},
    "low-rank": {"form": "low_rank", **PLAIN},
    "explicit, trust": {"form": "explicit"},
    "low-rank, trust": {"form": "low_rank"},
}
# Of the guided scores of one iteration, nats.
LIMIT = 1e-3


class Ours:
    """A batch of half-masked random pictures and texts, and what is done with it."""

    def __init__(self, model: dict[str, Any], dtype: str, batch: int, opened: int):
        transformer = {**model["transformer"], "dtype": dtype, "remat": "none"}
        values = {**model, "transformer": transformer}
        self.config = from_mapping(gptface_model.GPTFaceConfig, values, "model.")
        self.module = gptface_model.GPTFace(self.config)
        layout, vocab = self.config.layout, self.config.vocab
        rng = np.random.default_rng(0)
        codes = rng.integers(vocab.codebook_size, size=(batch, layout.num_image_tokens))
        words = rng.integers(104, vocab.text_size, (batch, layout.max_text_tokens))
        words[:, layout.max_text_tokens // 2 :] = vocab.pad_id
        self.tokens = gptface_model.assemble(
            jnp.asarray(codes), jnp.asarray(words), self.config
        )
        where = layout.image_slice
        self.known = np.ones(self.tokens.shape, bool)
        self.known[:, where.start : where.start + opened] = False
        init = functools.partial(self.module.init, method="init_all")
        self.params = nn.meta.unbox(jax.jit(init)(jax.random.key(0), self.tokens[:1]))
        self.params = self.params["params"]

    def decoder(self, options: DecodeConfig):
        """(function of no arguments that decodes, bytes of temporaries)."""
        arguments = (self.tokens, jnp.asarray(self.known))
        key = jax.random.key(1)
        compiled = decode.fill_jitted.lower(
            self.module, self.params, *arguments, options, key
        ).compile()

        def run():
            return jax.block_until_ready(compiled(self.params, *arguments, key))

        return run, compiled.memory_analysis().temp_size_in_bytes

    def forward(self, options: DecodeConfig):
        """Function of no arguments: one unguided prediction of the batch."""

        @jax.jit
        def run(params):
            def one(tokens):
                return predict.side_logits(
                    self.module, {"params": params}, tokens, options
                )["image"]

            return jax.nn.log_softmax(jax.vmap(one)(self.tokens))

        return lambda: jax.block_until_ready(run(self.params))

    def scores(self, options: DecodeConfig) -> np.ndarray:
        """Log-probabilities of the first picture's codes after a guided shift."""
        tokens = jnp.where(self.known[0], self.tokens[0], self.config.vocab.mask_id)

        @jax.jit
        def run(params):
            shift, *_ = predict.shift(self.module, params, tokens, options)
            variables = shift.variables(params)
            logits = predict.side_logits(self.module, variables, tokens, options)
            return jax.nn.log_softmax(logits["image"])

        return np.asarray(run(self.params))


def peer(ours: Ours, mode: str, options: DecodeConfig, device: str, dtype: str):
    """`torch_gptface.Decoding` with our weights."""
    flat = {k: np.asarray(v) for k, v in trees.flatten(ours.params).items()}
    model = torch_gptface.load(torch_gptface.GPTFace(ours.config, (0, 0)), flat, device)
    return torch_gptface.Decoding(
        model, device, dtype, guided=options.guidance != "none",
        trust="trust" in mode, step_size=options.step_size, kl_max=options.kl_max,
        fusion=options.fusion, k=options.k,
    )  # fmt: skip


def check(size: dict[str, Any], opened: int, device: str) -> float:
    """The largest difference of the guided scores of one iteration, float32.

    Raises:
      SystemExit: the two do not do the same.
    """
    ours = Ours(size, "float32", 1, opened)
    torch.set_float32_matmul_precision("highest")
    where = ours.config.layout.image_slice
    tokens = np.where(ours.known[0], ours.tokens[0], ours.config.vocab.mask_id)
    given = torch.from_numpy(tokens).long().to(device)
    worst = 0.0
    for mode in ("explicit", "low-rank"):
        options = DecodeConfig(match_token=False, **MODES[mode])
        other = peer(ours, mode, options, device, "float32")
        is_open = torch.from_numpy(~ours.known[0, where]).to(device)
        theirs = other.scores(given, is_open).cpu().numpy()
        with jax.default_matmul_precision("float32"):  # GPUs would round factors
            difference = np.abs(ours.scores(options) - theirs).max()
        worst = max(worst, float(difference))
    torch.set_float32_matmul_precision("high")
    if not worst <= LIMIT:
        raise SystemExit(
            f"the guided scores differ by {worst:.3g} nats (at most {LIMIT:g}): "
            "nothing was timed"
        )
    return worst


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="faces64")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--open", type=int, help="codes to fill; default 40 %%")
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=0, help="guided; default all")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="CPU cores of both; default: all")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plan", action="store_true", help="memory only: nothing runs")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    size = SIZES[options.size][0]
    facts = pretrain.prepare(argparse.Namespace(**vars(options), remat="none"))
    codes = int(np.prod(size["layout"]["grid"]))
    opened = options.open or round(0.4 * codes)
    iterations = -(-opened // options.k)
    facts |= {"open": opened, "k": options.k, "iterations": iterations}
    print("  ".join(f"{name} {value}" for name, value in facts.items()))
    if not options.plan:
        print(f"guided scores differ by {check(size, opened, options.device):.2g} nats")
    rows = [["batch, mode", "ms/iteration", "forwards", "edits/s", "x PyTorch", "MiB"]]
    record: dict[str, Any] = {**facts, "rows": []}
    alone = {}
    for batch in options.batch:
        ours = Ours(size, options.dtype, batch, opened)
        sides: dict[str, Any] = {}
        memory = {}
        for mode in options.modes:
            config = DecodeConfig(
                k=options.k, match_token=False, at_once=options.at_once, **MODES[mode]
            )
            sides[mode], memory[mode] = ours.decoder(config)
            if options.plan:
                print(f"{batch}, {mode}: {memory[mode] / 2**20:.0f} MiB", flush=True)
        if options.plan:
            continue
        sides["forward"] = ours.forward(DecodeConfig(match_token=False))
        spent = timing.interleaved(sides, options.repeats, options.clock)
        for mode in options.modes:
            kind = mode.replace("explicit", "guided").replace("low-rank", "guided")
            if kind not in alone:
                alone[kind] = by_picture(ours, mode, options)
            once, rate = spent[mode] / iterations, batch / spent[mode]
            row = {
                "batch": batch,
                "mode": mode,
                "seconds_per_iteration": once,
                "forwards": once / spent["forward"],
                "edits_per_s": rate,
                "peer_edits_per_s": 1 / alone[kind],
                "temporaries": memory[mode],
            }
            record["rows"].append(row)
            rows.append([
                f"{batch}, {mode}", f"{1e3 * once:.1f}", f"{row['forwards']:.2f}",
                f"{rate:.2f}", f"{rate * alone[kind]:.2f}",
                f"{memory[mode] / 2**20:.0f}",
            ])  # fmt: skip
    if options.plan:
        return
    print(aligned(rows))
    if options.json:
        files.write_text(options.json, json.dumps(record, indent=2) + "\n")


def by_picture(ours: Ours, mode: str, options: argparse.Namespace) -> float:
    """Seconds of the peer for one picture."""
    config = DecodeConfig(k=options.k, match_token=False, **MODES[mode])
    other = peer(ours, mode, config, options.device, options.dtype)
    where = ours.config.layout.image_slice
    tokens = torch.from_numpy(np.array(ours.tokens[0])).long().to(options.device)
    is_open = torch.from_numpy(~ours.known[0, where]).to(options.device)

    def run():
        other.decode(tokens, is_open)
        if options.device == "cuda":
            torch.cuda.synchronize()

    return timing.interleaved({"": run}, options.repeats, options.clock)[""]


if __name__ == "__main__":
    main()
