"""Does this device compute what the CPU beside it computes? With the bundled model.

    python benchmarks/device_checks.py              # JAX's first device against its CPU
    python benchmarks/device_checks.py --golden DIR # and against recorded vectors

Codes and pictures of the tokenizer, scores of the transformer before and after a guided
step, codes of a whole guided decoding, the attention kernels against the reference,
heads as they are rendered, and a training loss in bfloat16 against float32. The status
is 1 where a difference is larger than it may be. On a CPU it is compared with itself.
What reference implementations recorded (`golden_checks.py`) lies in golden/ or in
../shared/golden, where it is there.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
from collections.abc import Iterable

import golden_checks
import jax
import jax.numpy as jnp
import numpy as np
import render
from PIL import Image
from tables import aligned

import gptface_jax
from gptface_jax.data.facemodel import open_model
from gptface_jax.nn import attention
from gptface_jax.ops import morphable
from gptface_jax.ops import render as ops_render
from gptface_jax.pipelines import networks
from gptface_jax.systems.gptface import decode, predict
from gptface_jax.systems.gptface.options import DecodeConfig

PHOTO = networks.BUNDLED.parent / "assets" / "astronaut.jpg"
GOLDEN = [pathlib.Path(name) for name in ("golden", "../shared/golden")]
GUIDED = DecodeConfig(guidance="ascent_norm", k=8, temperature=0.0, form="explicit")


def on(device, function, *arrays):
    """What a function makes of arrays on a device, as NumPy, in full float32."""
    placed = jax.device_put(arrays, device)
    with jax.default_matmul_precision("float32"), jax.default_device(device):
        return jax.tree.map(np.asarray, jax.jit(function)(*placed))


def apart(device, function, *arrays) -> float:
    """The largest difference between device and CPU."""
    one, two = (on(d, function, *arrays) for d in (device, jax.devices("cpu")[0]))
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two))
    return max(float(np.abs(a.astype(float) - b).max()) for a, b in pairs)


def differing(device, function, *arrays) -> float:
    """The share of entries that are not the same on device and CPU."""
    one, two = (on(d, function, *arrays) for d in (device, jax.devices("cpu")[0]))
    return float((one != two).mean())


def bundled_model(device) -> list[tuple[str, float, float]]:
    """(what, difference, limit) of tokenizer, transformer and decoder."""
    editor = gptface_jax.load("demo64").editor
    vqgan, module, params = editor.vqgan.network, editor.module, editor.gptface.params
    encode = functools.partial(vqgan.module.apply, method="encode")
    paint = functools.partial(vqgan.module.apply, method="decode")
    variables = {"params": vqgan.params}
    photo = Image.open(PHOTO).convert("RGB").resize((editor.size, editor.size))
    photo = np.asarray(photo, np.float32)[None] / 127.5 - 1
    ids = on(jax.devices("cpu")[0], encode, variables, photo)
    tokens = np.asarray(editor.tokens(ids, ["a smiling woman wearing a hat"]))
    start = editor.layout.image_slice.start
    known = np.ones(tokens.shape, bool)
    known[:, start : start + 24] = False
    hidden = np.where(known, tokens, editor.vocab.mask_id)[0]

    def scores(params, tokens):
        logits = predict.side_logits(module, {"params": params}, tokens, GUIDED)
        return jax.nn.log_softmax(logits["image"])

    def guided(params, tokens):
        shift, *_ = predict.shift(module, params, tokens, GUIDED)
        logits = predict.side_logits(module, shift.variables(params), tokens, GUIDED)
        return jax.nn.log_softmax(logits["image"])

    def drawn(params, tokens, known):
        key = jax.random.key(0)
        return decode.fill(module, params, tokens, known, GUIDED, key).tokens

    return [
        ("codes of a photo, share", differing(device, encode, variables, photo), 0.02),
        ("picture of codes, of [-1, 1]", apart(device, paint, variables, ids), 1e-3),
        ("scores of codes, nats", apart(device, scores, params, hidden), 2e-3),
        ("scores, guided, nats", apart(device, guided, params, hidden), 5e-3),
        ("guided decoding, share of codes", differing(device, drawn, params, tokens,
                                                      known), 0.1),
    ]  # fmt: skip


def kernels(device) -> list[tuple[str, float, float]]:
    """The attention kernels of this platform against the reference, bfloat16."""
    of_platform = {"gpu": ["cudnn"], "tpu": ["flash", "splash"]}
    names = of_platform.get(device.platform, ["folded"])
    keys = jax.random.split(jax.random.key(1), 3)
    query, key, value = (
        jax.random.normal(k, (2, 256, 4, 64), jnp.bfloat16) for k in keys
    )
    valid = jnp.arange(256) < jnp.array([[256], [200]])
    mask = jnp.broadcast_to(valid[:, None, None], (2, 1, 256, 256))

    def run(name, *arrays):
        def loss(*arrays):
            out = attention.attend(*arrays, mask, name).astype(jnp.float32)
            return jnp.sum(jnp.sin(out)), out

        (_, out), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*arrays)
        return out, grads

    found = []
    for name in names:
        one = on(device, functools.partial(run, name), query, key, value)
        two = on(device, functools.partial(run, "xla"), query, key, value)
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two))
        worst = max(float(np.abs(a.astype(float) - b).max()) for a, b in pairs)
        found.append((f"attention by {name}, with gradients", worst, 3e-2))
    return found


def heads(device) -> list[tuple[str, float, float]]:
    """Rendered heads: the share of pixels that differ, at rims."""
    model = open_model()
    basis = {name: jnp.asarray(getattr(model, name)) for name in morphable.ARRAYS}

    def picture(coeffs):
        return ops_render.render_head(basis, coeffs, 64).colour

    cpu = jax.devices("cpu")[0]
    one, two = (on(d, picture, render.coefficients(basis, 2)) for d in (device, cpu))
    share = float((np.abs(one - two) > 1e-2).mean())
    return [("heads, share of values", share, 0.01)]


def half(device) -> list[tuple[str, float, float]]:
    """Scores in bfloat16 against float32, on the device."""
    model = gptface_jax.load("demo64")
    codes = np.random.default_rng(0).integers(1024, size=(8, *model.editor.grid))
    one, two = (
        model.editor.__class__(
            model.editor.vqgan.network, model.editor.gptface,
            model.editor.text_tokenizer, [device], dtype,
        ).score(codes, ["a man"] * 8)
        for dtype in ("bfloat16", "float32")
    )  # fmt: skip
    worst = float(np.abs(np.exp(one) - np.exp(two)).max())
    return [("chance of a match in bfloat16", worst, 0.05)]


def recorded(device, folder: pathlib.Path) -> Iterable[tuple[str, float, float]]:
    """What reference implementations recorded, in full float32."""
    return golden_checks.rows(folder, functools.partial(on, device))


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--golden", type=pathlib.Path, metavar="DIR")
    options = parser.parse_args(arguments)
    if options.golden and not options.golden.is_dir():
        parser.error(f"--golden '{options.golden}' is no folder")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = read_options(arguments)
    golden = options.golden or next(filter(pathlib.Path.is_dir, GOLDEN), None)
    parts = [bundled_model, kernels, heads, half]
    if golden:
        parts.append(functools.partial(recorded, folder=golden))
    device = jax.devices()[0]
    rows, wrong = [["check", "difference", "at most", ""]], 0
    for part in parts:
        for what, difference, limit in part(device):
            well = difference <= limit
            wrong += not well
            verdict = "ok" if well else "WRONG"
            rows.append([what, f"{difference:.2g}", f"{limit:g}", verdict])
            print(what, rows[-1][1], verdict, file=sys.stderr, flush=True)
    print(f"{device.device_kind} against the CPU, jax {jax.__version__}")
    print(aligned(rows))
    if not golden:
        print(
            f"No recorded vectors: neither {' nor '.join(map(str, GOLDEN))} is there."
        )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
