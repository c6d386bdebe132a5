"""Face perception by one encoder: Faceptor and Naive Faceptor (SPEC part C).

Faceptor reads an encoder's maps with queries, six families of tasks alike; the naive
design has a head for each family. Parameter paths: backbone/..., decoder/...,
value/..., map/..., feature/..., head_FAMILY/..., classifier_TASK; statistics of
batches are in the collection "batch_stats".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.core import perception_tasks
from gptface_jax.core.perception_tasks import FAMILIES
from gptface_jax.nn import perception_heads as heads
from gptface_jax.nn import query_decoder
from gptface_jax.nn.query_decoder import QueryDecoderConfig
from gptface_jax.nn.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from gptface_jax.nn.vit import ViT, ViTConfig
from gptface_jax.ops import heatmaps, resampling

ENCODERS = ("vit", "tokens", "patches")
DESIGNS = ("queries", "heads")
PIXELS = ("family", "unit")


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """One task on one data set.

    Attributes:
      name: "family_dataset", see `core.perception_tasks`.
      queries: answers: ages, attributes, expressions, classes or points; 0 for what
        the table says.
      identities: of a recognition task in training, rows of its classifier.
      resolution: side in pixels of its pictures; 0 for that of tasks like it, see
        `PerceptionConfig`.
    """

    name: str
    queries: int = 0
    identities: int = 0
    resolution: int = 0

    def __post_init__(self):
        family = perception_tasks.family(self.name)
        if not self.queries and self.name in perception_tasks.TABLE:
            queries = perception_tasks.TABLE[self.name].queries
            object.__setattr__(self, "queries", queries)
        if self.resolution < 0:
            raise ValueError(
                f"task {self.name!r} has resolution {self.resolution}; give pixels, or "
                "0 for that of tasks like it"
            )
        if family.interpreter != "feature" and self.queries < 1:
            raise ValueError(f"task {self.name!r} has {self.queries} queries; give 1+")

    @property
    def family(self) -> str:
        return self.name.partition("_")[0]

    @property
    def interpreter(self) -> str:
        return FAMILIES[self.family].interpreter

    @property
    def output(self) -> str:
        return FAMILIES[self.family].output

    @property
    def has_queries(self) -> bool:
        return self.interpreter != "feature"

    @property
    def dense(self) -> bool:
        return self.interpreter == "map"


def _task(given: Any) -> TaskConfig:
    """The task of what a config says: one, a mapping of its entries, or its name."""
    if isinstance(given, TaskConfig):
        return given
    return TaskConfig(given) if isinstance(given, str) else TaskConfig(**dict(given))


@dataclasses.dataclass(frozen=True)
class PerceptionConfig:
    """The network; the defaults are Faceptor-Base's, with no task.

    Attributes:
      design: "queries" (Faceptor) or "heads" (Naive Faceptor).
      encoder: "vit"; or GPTFace's layers on "tokens" or on "patches".
      vit: of the encoder "vit".
      sequence: of the others.
      decoder: of the design "queries".
      tasks: `TaskConfig`s, mappings of their entries, or names of the table.
      pixels: how pictures are normalised: "family", as released models want it for
        each family, or "unit", in -1..1 for all, so that one pass serves all.
      source_level: layer of the encoder, from 0 on, that pixels and identities are
        made of.
      embedding_width: of an identity.
      attribute_resolution, dense_resolution: sides in pixels of the pictures for
        tasks without and with maps.
      attribute_width, dense_width, attribute_levels, dense_levels: of the design
        "heads".
    """

    design: str = "queries"
    encoder: str = "vit"
    vit: ViTConfig = ViTConfig()
    sequence: SequenceEncoderConfig = SequenceEncoderConfig()
    decoder: QueryDecoderConfig = QueryDecoderConfig()
    tasks: tuple[Any, ...] = ()
    pixels: str = "family"
    source_level: int = 11
    embedding_width: int = 512
    attribute_resolution: int = 112
    dense_resolution: int = 512
    attribute_width: int = 512
    dense_width: int = 512
    attribute_levels: tuple[int, ...] = (5, 7, 9, 11)
    dense_levels: tuple[int, ...] = (3, 5, 7, 11)

    def __post_init__(self):
        for name, choices in (
            ("design", DESIGNS),
            ("encoder", ENCODERS),
            ("pixels", PIXELS),
        ):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
        made = tuple(_task(task) for task in self.tasks)
        object.__setattr__(self, "tasks", made)
        names = [t.name for t in made]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"task {twice[0]!r} is there twice; give each one name")
        if self.design == "queries" and self.source_level not in self.decoder.levels:
            raise ValueError(
                f"source_level {self.source_level} is none of decoder.levels "
                f"{list(self.decoder.levels)}; pixels are made of one of them"
            )
        deepest = self.depth - 1
        if odd := [n for n in self.all_levels if not 0 <= n <= deepest]:
            raise ValueError(
                f"layer {odd[0]} is asked for; the encoder has 0 to {deepest}"
            )

    @property
    def depth(self) -> int:
        """Layers of the encoder."""
        vit = self.encoder == "vit"
        return (self.vit if vit else self.sequence).transformer.num_layers

    @property
    def all_levels(self) -> tuple[int, ...]:
        """Layers of the encoder that anything reads."""
        if self.design == "queries":
            read = (*self.decoder.levels, *self.decoder.new_levels)
        else:
            read = (*self.attribute_levels, *self.dense_levels)
        return tuple(sorted({self.source_level, *read}))

    @property
    def last_stage(self) -> int:
        """The stage with all levels: 2 where there are new ones."""
        return 2 if self.design == "queries" and self.decoder.new_levels else 1

    def task(self, name: str) -> TaskConfig:
        """The task of a name.

        Raises:
          ValueError: there is none.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(t.name for t in self.tasks)
        raise ValueError(f"task {name!r} is not the model's; it has {known or 'none'}")

    def resolution(self, name: str) -> int:
        """Side in pixels of the pictures that a task is meant for."""
        task = self.task(name)
        usual = self.dense_resolution if task.dense else self.attribute_resolution
        return task.resolution or usual

    def levels(self, tasks: Sequence[str], stage: int) -> tuple[int, ...]:
        """Layers of the encoder that these tasks read, in ascending order."""
        wanted: set[int] = set()
        for task in map(self.task, tasks):
            if not task.has_queries:
                wanted |= {self.source_level}
            elif self.design == "queries":
                wanted |= {*self.decoder.read(stage)}
            else:
                wanted |= {
                    *(self.dense_levels if task.dense else self.attribute_levels)
                }
        return tuple(sorted(wanted))


class Perception(nn.Module):
    """Faceptor, or the naive design, of a config."""

    config: PerceptionConfig

    def setup(self):
        c = self.config
        if c.encoder == "vit":
            self.backbone = ViT(c.vit)
        else:
            self.backbone = SequenceEncoder(c.sequence)
        dtype = c.decoder.dtype
        if c.design == "queries":
            asked = tuple((t.name, t.queries) for t in c.tasks if t.has_queries)
            self.decoder = query_decoder.QueryDecoder(c.decoder, asked)
            self.value = query_decoder.ValueInterpreter(dtype)
            self.map = query_decoder.MapInterpreter(c.decoder.transformer)
        else:
            self.head = {f: self._head(f) for f in self._families()}
        self.feature = heads.IdentityHead(c.embedding_width, dtype)
        init = nn.with_logical_partitioning(
            nn.initializers.normal(0.01), ("classes", "embed")
        )
        self.classifiers = {
            t.name: self.param(
                f"classifier_{t.name}", init, (t.identities, c.embedding_width)
            )
            for t in c.tasks
            if t.identities
        }

    def _families(self) -> list[str]:
        """Families of the tasks that have heads of their own, in order."""
        return [*dict.fromkeys(t.family for t in self.config.tasks if t.has_queries)]

    def _head(self, family: str) -> nn.Module:
        c = self.config
        tasks = tuple((t.name, t.queries) for t in c.tasks if t.family == family)
        if FAMILIES[family].interpreter == "map":
            return heads.DenseHead(c.dense_width, tasks, c.decoder.dtype)
        return heads.AttributeHead(c.attribute_width, tasks, c.decoder.dtype)

    def __call__(
        self,
        inputs: jax.Array,
        tasks: Sequence[str],
        stage: int = 1,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Raw outputs of the given tasks for pictures, see `read`.

        Args:
          inputs: float [B,H,W,3], normalised; of the encoder "tokens" int [B,h,w].
          tasks: names.
          stage: 1, or 2 with the new levels.
          train: statistics of the batch, dropout; a "dropout" rng is needed.
          mask: see `query_decoder.QueryDecoder`.
        """
        maps = self.encode(inputs, self.config.levels(tasks, stage), train)
        return self.read(maps, tasks, stage, train, mask)

    def encode(
        self, inputs: jax.Array, levels: Sequence[int], train: bool = False
    ) -> dict[int, jax.Array]:
        """Maps [B,h,w,D] of layers of the encoder, {layer: map}."""
        levels = tuple(levels)
        read = self.backbone if self.config.encoder == "vit" else self.backbone.maps
        return dict(zip(levels, read(inputs, levels, not train)))

    def read(
        self,
        maps: Mapping[int, jax.Array],
        tasks: Sequence[str],
        stage: int = 1,
        train: bool = False,
        mask: jax.Array | None = None,
        rows: Mapping[str, slice] | None = None,
    ) -> dict[str, jax.Array]:
        """Raw outputs of the tasks, from the encoder's maps.

        Args:
          maps: {layer: [B,h,w,D]}.
          tasks, stage, train, mask: see `__call__`.
          rows: of the maps, those that are of a task's pictures; default all.

        Returns:
          {task: logits float32 [B,Q]; or maps of logits float32 [B,4h,4w,Q]; or an
          embedding float32 [B,E]}.
        """
        c = self.config
        rows = rows or dict.fromkeys(tasks, slice(None))
        found = {}
        for task in tasks:
            if not c.task(task).has_queries:
                found[task] = self.feature(maps[c.source_level][rows[task]], train)
        if asked := [t for t in tasks if c.task(t).has_queries]:
            if c.design == "queries":
                found |= self._decoded(maps, asked, stage, mask, rows)
            else:
                found |= self._by_heads(maps, asked, train, rows)
        return {task: found[task] for task in tasks}

    def _decoded(self, maps, tasks, stage, mask, rows):
        c = self.config
        levels = c.decoder.read(stage)
        projected = self.decoder.projected([maps[level] for level in levels])
        states = self.decoder(tasks, projected, mask, rows)
        source = projected[levels.index(c.source_level)]
        found, pixels = {}, {}
        for task in tasks:
            if not c.task(task).dense:
                found[task] = self.value(states[task])
                continue
            part = rows[task].start, rows[task].stop
            if part not in pixels:
                pixels[part] = self.map.pixels(source[rows[task]])
            found[task] = self.map(states[task], pixels[part])
        return found

    def _by_heads(self, maps, tasks, train, rows):
        """Outputs by task; one pass for tasks of a family that read the same rows."""
        c, found = self.config, {}
        for task in tasks:
            if task in found:
                continue
            family, part = c.task(task).family, rows[task]
            levels = c.dense_levels if c.task(task).dense else c.attribute_levels
            said = self.head[family]([maps[level][part] for level in levels], train)
            found |= {t: x for t, x in said.items() if rows.get(t) == part}
        return found

    def init_all(self, inputs: jax.Array) -> None:
        """Meets every parameter."""
        c = self.config
        maps = self.encode(inputs, c.all_levels)
        self.read(maps, [t.name for t in c.tasks], c.last_stage)


def normalised(config: PerceptionConfig, task: str, image: jax.Array) -> jax.Array:
    """Pictures in [-1,1], [B,H,W,3], normalised as a task's encoder expects."""
    statistics = FAMILIES[config.task(task).family].statistics
    if config.pixels == "unit" or statistics == perception_tasks.UNIT:
        return image
    mean, std = (jnp.asarray(x, jnp.float32) for x in statistics)
    return ((image + 1) / 2 - mean) / std


def prediction(config: PerceptionConfig, task: str, raw: jax.Array) -> jax.Array:
    """A task's prediction, from the raw output of `Perception.read`.

    Logits and embeddings as they are; of parsing the logits float32 [B,S,S,Q] at the
    task's resolution; of landmarks points float32 [B,Q,2] (x, y) as shares of the
    sides.
    """
    output = config.task(task).output
    if output == "parsing":
        side = config.resolution(task)
        return resampling.resize(raw, (side, side))
    if output == "landmarks":
        return heatmaps.centroids(jax.nn.sigmoid(raw))
    return raw


def example_inputs(config: PerceptionConfig) -> jax.Array:
    """The smallest inputs that the network can be initialised with."""
    if config.encoder == "tokens":
        return jnp.zeros((1, 4, 4), jnp.int32)
    vit = config.encoder == "vit"
    side = 4 * (config.vit if vit else config.sequence).patch
    return jnp.zeros((1, side, side, 3))
