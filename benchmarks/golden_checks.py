"""Does a device compute what the reference implementations recorded?

A folder of recorded vectors holds weights, inputs and outputs of five networks: the
VQGAN of taming-transformers, the two transformers of TencentPretrain, Faceptor and
LPIPS. All are float32 with random weights. They have to agree to 2e-4 on activations of
order one, identities with a relative 1e-5 besides; codes exactly but for ties;
landmarks to 1e-5; LPIPS to a relative 1e-3.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from gptface_jax.interop import faceptor, taming, tencent
from gptface_jax.nn.perceptual import LPIPS
from gptface_jax.nn.prefix_lm import PrefixLM
from gptface_jax.nn.vit import ViT
from gptface_jax.nn.vqgan import VQGAN
from gptface_jax.ops import quantize
from gptface_jax.systems.faceptor import model as faceptor_model
from gptface_jax.systems.talk2face import model as talk2face_model

# (what, difference, at most)
Row = tuple[str, float, float]
# (function, *arrays) -> NumPy: computes on the device that is checked.
Run = Callable[..., Any]
LIMIT = 2e-4


def rows(folder: pathlib.Path, run: Run) -> Iterator[Row]:
    """The checks of every network whose vectors are in the folder."""
    for name, check in CHECKS.items():
        if (folder / f"{name}.npz").exists():
            with np.load(folder / f"{name}.npz") as arrays:
                for what, difference, limit in check(folder / name, arrays, run):
                    yield f"recorded {name}, {what}", difference, limit


def apart(found, wanted, relative: float = 0.0) -> float:
    """The largest difference, less this share of what is wanted."""
    return float((np.abs(found - wanted) - relative * np.abs(wanted)).max())


def _taming(path: pathlib.Path, arrays, run: Run) -> Iterator[Row]:
    config, params = taming.load(
        path.with_suffix(".ckpt"), json.loads(path.with_suffix(".json").read_text())
    )

    def method(name: str):
        return functools.partial(VQGAN(config).apply, method=name)

    variables = {"params": params}
    z = run(method("latents"), variables, arrays["image"])
    yield "latents", apart(z, arrays["z"]), LIMIT
    distances = np.sort(run(quantize.distances, z, params["codebook"]), -1)
    clear = distances[..., 1] - distances[..., 0] >= 1e-5
    codes = run(method("quantize"), variables, z)
    yield "codes, share", float((codes != arrays["codes"])[clear].mean()), 0.0
    pictures = run(method("decode"), variables, arrays["codes"])
    yield "pictures", apart(pictures, arrays["reconstruction"]), LIMIT


def _tencent(path: pathlib.Path, arrays, run: Run) -> Iterator[Row]:
    options = json.loads(path.with_suffix(".json").read_text())
    config, params = tencent.load(path.with_suffix(".bin"), options)
    tokens, segments = (arrays[n].astype(np.int32) for n in ("tokens", "segments"))

    def hidden(params, *given):
        return PrefixLM(config).apply({"params": params}, *given, method="sequence")

    logits = functools.partial(talk2face_model.logits, config)
    for name, function in (("hidden", hidden), ("logits", logits)):
        found = run(function, params, tokens, segments)
        yield name, apart(*(x[segments > 0] for x in (found, arrays[name]))), LIMIT


def _faceptor(path: pathlib.Path, arrays, run: Run) -> Iterator[Row]:
    loaded = faceptor.load(path.with_suffix(".ckpt"), path.with_suffix(".json"))
    config, params, state = loaded
    encode = functools.partial(ViT(config.vit).apply, layers=(0, 1, 2, 3))
    maps = {group: arrays[f"features_{group}"] for group in ("attribute", "dense")}
    for group, wanted in maps.items():
        image = arrays[f"images_{group}"][: wanted.shape[1]]
        found = run(encode, {"params": params["backbone"]}, image)
        yield f"features, {group}", apart(np.stack(found), wanted), LIMIT

    def answer(task: str, stage: int, group: str):
        def apply(*given):
            found = faceptor_model.apply_to_maps(config, *given, (task,), stage)
            return found[task]

        return run(apply, params, state, dict(enumerate(maps[group])))

    for task in ("age_morph2", "biattr_celeba", "affect_affectnet", "affect_rafdb"):
        for stage in (1, 2):
            wanted = arrays[f"stage{stage}_out_{task}"]
            found = answer(task, stage, "attribute")
            yield f"{task}, stage {stage}", apart(found, wanted), LIMIT
    identity = answer("recog_ms1mv3", 1, "attribute")
    wanted = arrays["stage1_out_recog_ms1mv3"]
    yield "recog_ms1mv3", apart(identity, wanted, 1e-5), LIMIT
    parsing = answer("parsing_celebam", 1, "dense")[..., [0, -1]]
    wanted = arrays["stage1_out_parsing_celebam"]
    yield "parsing_celebam", apart(parsing, wanted), LIMIT
    for stage in (1, 2):
        points = answer("align_300w", stage, "dense")
        wanted = arrays[f"stage{stage}_landmarks_align_300w"]
        yield f"align_300w, stage {stage}", apart(points, wanted), 1e-5


def _lpips(path: pathlib.Path, arrays, run: Run) -> Iterator[Row]:
    images = arrays["image_a"], arrays["image_b"]
    found = run(LPIPS().apply, {"params": lpips_by_formula()}, *images)
    yield "relative", apart(found / arrays["distance"], 1.0), 1e-3


def lpips_by_formula() -> dict[str, Any]:
    """The weights of the recorded distances, which are a formula of their places."""
    params, before = {}, 3
    widths = (64, 64, 128, 128, *[256] * 3, *[512] * 6)
    for c, width in enumerate(widths):
        i = np.arange(9 * before * width, dtype=np.float64)
        kernel = np.sin(12.9898 * i + 78.233 * c) * np.sqrt(4 / (9 * before))
        kernel = kernel.reshape(width, before, 3, 3).transpose(2, 3, 1, 0)
        bias = 0.01 * np.cos(np.arange(width) + c)
        params[f"conv_{c}"] = {"kernel": kernel, "bias": bias}
        before = width
    for k, width in enumerate((64, 128, 256, 512, 512)):
        params[f"lin_{k}"] = np.abs(np.sin(0.7 * np.arange(width) + k)) / width
    return jax.tree.map(lambda x: x.astype(np.float32), params)


CHECKS = {
    "taming_vqgan": _taming,
    "talk2face_dense": _tencent,
    "prenorm_glu": _tencent,
    "faceptor": _faceptor,
    "lpips": _lpips,
}
