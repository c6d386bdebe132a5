"""The names that Faceptor's released files give its weights (SPEC C.10, C.10a).

Each of them with the path of the same weight here, its shape there, and the form in
which it is kept: what their matrices multiply from the left, ours do from the right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from gptface_jax.nn.perception import PerceptionConfig, TaskConfig
from gptface_jax.nn.vit import ViTConfig

Array = np.ndarray
# Form -> (theirs to ours, ours to theirs of a shape).
_FORMS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, tuple], Array]]] = {
    "same": (lambda x: x, lambda x, shape: x),
    "count": (lambda x: x.astype(np.int32), lambda x, shape: x.astype(np.int64)),
    "dense": (lambda x: x.T, lambda x, shape: x.T),
    # 1 x 1 convolutions that are a product here.
    "point": (lambda x: x[:, :, 0, 0].T, lambda x, shape: x.T[:, :, None, None]),
    "conv": (
        lambda x: x.transpose(2, 3, 1, 0),
        lambda x, shape: x.transpose(3, 2, 0, 1),
    ),
    "patches": (
        lambda x: x.transpose(2, 3, 1, 0).reshape(-1, len(x)),
        lambda x, shape: x.reshape(*shape[2:], *shape[1::-1]).transpose(3, 2, 0, 1),
    ),
    "upsample": (
        lambda x: x.transpose(2, 3, 0, 1),
        lambda x, shape: x.transpose(2, 3, 0, 1),
    ),
}


@dataclasses.dataclass(frozen=True)
class Weight:
    """A weight of theirs.

    Attributes:
      name: there.
      paths: here, one; or three, of which theirs is put together.
      shape: there.
      form: a key of `_FORMS`.
      layer: its place in the stack of ours, None where there is no stack.
      alias: it repeats another one.
    """

    name: str
    paths: tuple[str, ...]
    shape: tuple[int, ...]
    form: str = "same"
    layer: int | None = None
    alias: bool = False

    def ours(self, array: Array) -> list[Array]:
        """The arrays of our paths, of theirs."""
        count = len(self.paths)
        parts = np.split(array, count) if count > 1 else [array]
        return [_FORMS[self.form][0](part) for part in parts]

    def theirs(self, arrays: list[Array]) -> Array:
        """Their array, of those of our paths."""
        parts = (len(arrays),) if len(arrays) > 1 else ()
        shape = (self.shape[0] // len(arrays), *self.shape[1:]) if parts else self.shape
        made = [_FORMS[self.form][1](x, shape) for x in arrays]
        return np.concatenate(made) if parts else made[0]


def _pair(name, path, shape, form, layer=None) -> Iterator[Weight]:
    """A matrix with its bias; the bias has as many entries as the matrix has rows."""
    yield Weight(f"{name}.weight", (f"{path}/kernel",), shape, form, layer)
    rows = shape[1] if form == "upsample" else shape[0]
    yield Weight(f"{name}.bias", (f"{path}/bias",), (rows,), layer=layer)


def _norm(name, path, width, layer=None) -> Iterator[Weight]:
    yield Weight(f"{name}.weight", (f"{path}/scale",), (width,), layer=layer)
    yield Weight(f"{name}.bias", (f"{path}/bias",), (width,), layer=layer)


def _batch_norm(name, path, width) -> Iterator[Weight]:
    yield from _norm(name, f"params/{path}", width)
    stats = f"batch_stats/{path}"
    yield Weight(f"{name}.running_mean", (f"{stats}/mean",), (width,))
    yield Weight(f"{name}.running_var", (f"{stats}/var",), (width,))
    yield Weight(f"{name}.num_batches_tracked", (f"{stats}/count",), (), "count")


def _attention(name, path, width, layer) -> Iterator[Weight]:
    parts = [f"{path}/{part}" for part in ("query", "key", "value")]
    kernels = tuple(f"{part}/kernel" for part in parts)
    biases = tuple(f"{part}/bias" for part in parts)
    shape = (3 * width, width)
    yield Weight(f"{name}.in_proj_weight", kernels, shape, "dense", layer)
    yield Weight(f"{name}.in_proj_bias", biases, (3 * width,), layer=layer)
    yield from _pair(f"{name}.out_proj", f"{path}/out", (width, width), "dense", layer)


def vit(config: ViTConfig, at: str, ours: str) -> Iterator[Weight]:
    """Names of a ViT as CLIP has them, beneath `at` there and `ours` here."""
    t = config.transformer
    width, mlp = t.width, t.mlp_width
    yield Weight(f"{at}class_embedding", (f"{ours}/class_token",), (width,))
    rows = 1 + config.grid**2
    yield Weight(f"{at}positional_embedding", (f"{ours}/position",), (rows, width))
    shape = (width, 3, config.patch, config.patch)
    yield Weight(f"{at}conv1.weight", (f"{ours}/patches/kernel",), shape, "patches")
    yield from _norm(f"{at}ln_pre", f"{ours}/entry_norm", width)
    for i in range(t.num_layers):
        name, path = f"{at}transformer.resblocks.{i}", f"{ours}/transformer/layers"
        yield from _attention(f"{name}.attn", f"{path}/attention", width, i)
        yield from _pair(f"{name}.mlp.c_fc", f"{path}/mlp/up", (mlp, width), "dense", i)
        shape = (width, mlp)
        yield from _pair(f"{name}.mlp.c_proj", f"{path}/mlp/down", shape, "dense", i)
        yield from _norm(f"{name}.ln_1", f"{path}/attention_norm", width, i)
        yield from _norm(f"{name}.ln_2", f"{path}/mlp_norm", width, i)
    if config.output_width:
        yield from _norm(f"{at}ln_post", f"{ours}/output_norm", width)
        shape = (width, config.output_width)
        yield Weight(f"{at}proj", (f"{ours}/output_projection",), shape)


def _decoder(config: PerceptionConfig, width: int) -> Iterator[Weight]:
    d, at, ours = config.decoder, "heads_module.decoder.", "params/decoder"
    for task in config.tasks:
        if task.has_queries:
            shape, path = (task.queries, d.width), f"{ours}/queries_{task.name}"
            name = f"{at}query_feat.{task.name}.weight"
            yield Weight(name, (f"{path}/content",), shape)
            name = f"{at}query_embed.{task.name}.weight"
            yield Weight(name, (f"{path}/position",), shape)
    for new, levels in (("", d.levels), ("new_", d.new_levels)):
        shape = (d.width, width, 1, 1)
        for i in range(len(levels)):
            path = f"{ours}/{new}project_{i}"
            yield from _pair(f"{at}{new}input_proj.{i}", path, shape, "point")
        if levels:
            shape = (len(levels), d.width)
            yield Weight(f"{at}{new}level_embed.weight", (f"{ours}/{new}level",), shape)
    for i, part in ((0, "in"), (2, "out")):
        path, shape = f"{ours}/position_{part}", (d.width, d.width)
        yield from _pair(f"{at}adapt_pos2d.{i}", path, shape, "dense")
    for i in range(d.layers):
        path, stack = f"{ours}/layers", f"{at}transformer_"
        for kind, inner in (("cross", "multihead_attn"), ("self", "self_attn")):
            name, here = f"{stack}{kind}_attention_layers.{i}", f"{path}/{kind}"
            yield from _attention(f"{name}.{inner}", f"{here}_attention", d.width, i)
            yield from _norm(f"{name}.norm", f"{here}_norm", d.width, i)
        name, wide = f"{stack}ffn_layers.{i}", (d.mlp_width, d.width)
        yield from _pair(f"{name}.linear1", f"{path}/mlp/up", wide, "dense", i)
        yield from _pair(f"{name}.linear2", f"{path}/mlp/down", wide[::-1], "dense", i)
        yield from _norm(f"{name}.norm", f"{path}/mlp_norm", d.width, i)


def _identity(at: str, config: PerceptionConfig, width: int) -> Iterator[Weight]:
    out = config.embedding_width
    yield from _norm(f"{at}.norm", "params/feature/norm", width)
    for i, size in ((0, width), (1, out)):
        path = f"params/feature/dense_{i}/kernel"
        yield Weight(f"{at}.head.{2 * i}.weight", (path,), (size, width), "dense")
        path = f"feature/batch_norm_{i}"
        yield from _batch_norm(f"{at}.head.{2 * i + 1}", path, size)


def _interpreters(config: PerceptionConfig, width: int) -> Iterator[Weight]:
    at, size = "heads_module.interpreters.", config.decoder.width
    kinds = {task.interpreter for task in config.tasks}
    if "value" in kinds:
        path = "params/value/output"
        yield from _pair(f"{at}value.fc", path, (1, size), "dense")
    if "map" in kinds:
        kernel, ours = (size, size, 2, 2), "params/map"
        for i in (0, 1):
            name = f"{at}map_v2.mask_map.{3 * i}"
            yield from _pair(name, f"{ours}/upsample_{i}", kernel, "upsample")
        yield from _norm(f"{at}map_v2.mask_map.1", f"{ours}/norm", size)
        for weight in _norm(f"{at}map_v2.mask_map.1.ln", f"{ours}/norm", size):
            yield dataclasses.replace(weight, alias=True)
        for i in range(3):
            name = f"{at}map_v2.mask_embed.layers.{i}"
            yield from _pair(name, f"{ours}/embed_{i}", (size, size), "dense")
    if "feature" in kinds:
        yield from _identity(f"{at}feature_v2", config, width)


def _attribute_head(
    at: str, path: str, tasks: list[TaskConfig], config: PerceptionConfig, width: int
) -> Iterator[Weight]:
    size, count = config.attribute_width, len(config.attribute_levels)
    ours = f"params/{path}"
    for i in range(count):
        shape, here = (size // count, width, 3, 3), f"{ours}/conv_{i}/kernel"
        yield Weight(f"{at}.conv.{i}.weight", (here,), shape, "conv")
    name, narrow = f"{at}.channel_attention.mlp", (size // 16, size)
    yield from _pair(f"{name}.1", f"{ours}/gate_in", narrow, "dense")
    yield from _pair(f"{name}.3", f"{ours}/gate_out", narrow[::-1], "dense")
    yield from _batch_norm(f"{at}.norm", f"{path}/norm", size)
    for i in range(2):
        here = f"{ours}/dense_{i}"
        yield from _pair(f"{at}.feature.{3 * i}", here, (size, size), "dense")
    for task in tasks:
        here, shape = f"{ours}/output_{task.name}", (task.queries, size)
        yield from _pair(f"{at}.fcs.{task.name}", here, shape, "dense")


def _dense_head(
    at: str, path: str, tasks: list[TaskConfig], config: PerceptionConfig, width: int
) -> Iterator[Weight]:
    size, ours, kernel = config.dense_width, f"params/{path}", (width, width, 2, 2)
    for i, name in ((0, "fpns.0.0"), (1, "fpns.0.3"), (2, "fpns.1")):
        yield from _pair(f"{at}.{name}", f"{ours}/upsample_{i}", kernel, "upsample")
    yield from _batch_norm(f"{at}.fpns.0.1", f"{path}/upsample_norm", width)

    def part(name, here, inputs, side):
        shape, kernel = (size, inputs, side, side), f"{ours}/{here}/conv/kernel"
        yield Weight(f"{at}.head.{name}.conv.weight", (kernel,), shape, "conv")
        yield from _batch_norm(f"{at}.head.{name}.bn", f"{path}/{here}/norm", size)

    for i in range(4):
        yield from part(f"psp_modules.{i}.1", f"pooled_{i}", width, 1)
    for i in range(3):
        yield from part(f"lateral_convs.{i}", f"lateral_{i}", width, 1)
        yield from part(f"fpn_convs.{i}", f"smooth_{i}", size, 3)
    yield from part("bottleneck", "bottleneck", width + 4 * size, 3)
    yield from part("fpn_bottleneck", "fused", 4 * size, 3)
    shape = (sum(task.queries for task in tasks), size, 1, 1)
    yield from _pair(f"{at}.head.conv_seg", f"{ours}/output", shape, "point")


def weights(config: PerceptionConfig, backbone: bool = True) -> Iterator[Weight]:
    """Weights of a whole model by name, without "module." before them.

    Args:
      config: with the encoder "vit".
      backbone: whether its encoder is there.
    """
    width = config.vit.transformer.width
    if backbone:
        yield from vit(config.vit, "backbone_module.visual.", "params/backbone")
    if config.design == "queries":
        yield from _decoder(config, width)
        yield from _interpreters(config, width)
    else:
        for family in dict.fromkeys(task.family for task in config.tasks):
            tasks = [task for task in config.tasks if task.family == family]
            at, path = f"heads_module.heads.{family}", f"head_{family}"
            if not tasks[0].has_queries:
                yield from _identity(at, config, width)
            elif tasks[0].dense:
                yield from _dense_head(at, path, tasks, config, width)
            else:
                yield from _attribute_head(at, path, tasks, config, width)
    for task in config.tasks:
        if task.identities:
            name = f"losses_module.losses.{task.name}.classifier"
            shape = (task.identities, config.embedding_width)
            yield Weight(name, (f"params/classifier_{task.name}",), shape)
