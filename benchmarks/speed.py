"""How fast is what people wait for: start-up, training steps, edits.

    python benchmarks/speed.py                      # this machine, small sizes
    python benchmarks/speed.py --config configs/gptface/pretrain_base.py --batch 8

Prints one table. The input pipeline is left out: batches are made up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
from timing import seconds


def start_up() -> list[tuple[str, str]]:
    rows = []
    for name, code in (
        ("python -c 'import gptface_jax'", "import gptface_jax"),
        (
            "gptface --help",
            "from gptface_jax.cli.main import main\ntry: main(['--help'])\n"
            "except SystemExit: pass",
        ),
    ):
        call = [sys.executable, "-c", code]
        spent = seconds(
            lambda c=call: subprocess.run(c, capture_output=True, check=True)
        )
        rows.append((name, f"{spent * 1e3:.0f} ms"))
    return rows


def training_step(path: str, batch: int | None) -> tuple[str, str]:
    import jax
    import jax.numpy as jnp
    from flax import linen as nn

    from gptface_jax.core.config import load_config
    from gptface_jax.experiments import registry
    from gptface_jax.train import settings

    config = settings.plain(load_config(path))
    config["batch_size"] = size = batch or config["batch_size"]
    system = registry.make(config)
    params = nn.meta.unbox(jax.jit(system.init)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    data = {
        feed: {
            name: jnp.asarray(
                rng.integers(5, 20, (size, *s.shape)).astype(s.dtype)
                if jnp.issubdtype(s.dtype, jnp.integer)
                else rng.uniform(0, 1, (size, *s.shape)).astype(s.dtype)
            )
            for name, s in given.spec.items()
        }
        for feed, given in system.feeds.items()
    }
    constants = dict(system.constants)
    state, loss = system.init_state(), system.phases[0].loss

    @jax.jit
    def step(params, state):
        (value, _), grads = jax.value_and_grad(
            lambda p: loss(
                p, state, constants, data, jax.random.key(1), jnp.int32(10**6)
            ),
            has_aux=True,
        )(params)
        return value, grads

    spent = seconds(lambda: jax.block_until_ready(step(params, state)))
    return f"gradient, {path}, batch {size}", f"{size / spent:.1f} examples/s"


def drawn_faces(count: int = 300) -> tuple[str, str]:
    from gptface_jax.data.synthetic import SyntheticFaces

    faces = SyntheticFaces(size=64, count=count)
    faces[0]
    start = time.process_time()
    for i in range(count):
        faces[i]
    rate = count / (time.process_time() - start)
    return "drawn faces, 64 px, with captions", f"{rate:.0f} a core-second"


def edit(model: str) -> list[tuple[str, str]]:
    import gptface_jax
    from gptface_jax.apps.quickstart import ASTRONAUT

    opened = gptface_jax.load(model)
    rows = []
    for guidance in ("none", "ascent_norm", "literal"):
        spent = seconds(
            lambda g=guidance: opened.edit(
                ASTRONAUT,
                "a woman wearing glasses",
                region="eyes",
                crop=(140, 24, 308, 192),
                guidance=g,
                cfg=1.0,
            )
        )
        rows.append((f"edit, 4 samples, guidance {guidance}", f"{spent:.2f} s"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", action="append", help="repeatable")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--model", help="also time edits with this model")
    options = parser.parse_args()
    rows = [*start_up(), drawn_faces()]
    for path in options.config or (
        "configs/vqgan/faces64.py",
        "configs/gptface/faces64.py",
        "configs/judge/faces64.py",
    ):
        rows.append(training_step(path, options.batch))
    if options.model:
        rows += edit(options.model)
    import jax

    print(
        f"JAX {jax.__version__}, {jax.devices()[0].device_kind} x {len(jax.devices())}"
    )
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value:>16}")


if __name__ == "__main__":
    main()
