"""The few-shot probe: backbones against a network trained on the same labels."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import photo_batches, sources
from gptface_jax.data.record import Record
from gptface_jax.data.tables import CELEBA_ATTRIBUTES
from gptface_jax.evaluate import few_shot
from gptface_jax.nn import tokens as nn_tokens
from gptface_jax.nn.classifier import Classifier, ClassifierConfig
from gptface_jax.nn.pooled_head import PooledHead
from gptface_jax.pipelines import batching, networks
from gptface_jax.protocols.model import Model
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.train import sharding

TASKS = ("attributes", "expressions")
BASELINES = ("random", "cnn", "majority")
# Half the judge's: a CPU trains it on all of LFW in minutes.
_CNN_CHANNELS = (16, 32, 64, 96)
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Task:
    """The question that is asked of a picture.

    Attributes:
      kind: "attributes" (each there or not: a score above 0.5) or "expressions" (one
        of several).
      names: the attributes or the expressions.
      per_class: most training pictures of an expression, a quarter as many to test
        on; 0 takes all.
    """

    kind: str
    names: tuple[str, ...]
    per_class: int = 0

    def labels(self, records: Sequence[Record]) -> np.ndarray:
        """Targets of the task, bool [N,A] or int [N]."""
        if self.kind == "attributes":
            return np.array([[r.labels[n] > 0.5 for n in self.names] for r in records])
        return np.array([self.names.index(r.expression) for r in records])

    def usable(self, record: Record) -> bool:
        if self.kind == "attributes":
            return all(name in (record.labels or {}) for name in self.names)
        return record.expression in self.names


def make_task(
    kind: str, records: Sequence[Record], names: Sequence[str] = (), per_class: int = 0
) -> Task:
    """The task that records allow.

    Args:
      kind: one of `TASKS`.
      records: to train on.
      names: attributes or expressions; by default all that the records have.
      per_class: see `Task`.

    Raises:
      UserError: what no record says.
    """
    if kind not in TASKS:
        raise UserError(f"task '{kind}' is unknown; use {' or '.join(TASKS)}")
    if per_class and kind == "attributes":
        raise UserError("a number of pictures a class is for the task expressions")
    if kind == "attributes":
        found = set().union(*(r.labels or {} for r in records))
        there = [name for name in CELEBA_ATTRIBUTES if name in found]
    else:
        there = sorted({r.expression for r in records} - {""})
    for name in names:
        if name not in there:
            raise UserError(
                f"no training picture says '{name}'{nearest(name, there)}; they say "
                + (", ".join(there) or "nothing of this kind")
            )
    chosen = tuple(names or there)
    if len(chosen) < (1 if kind == "attributes" else 2):
        raise UserError(
            f"the training pictures say {', '.join(there) or 'nothing'} as {kind}; "
            "give labelled pictures of both kinds"
        )
    return Task(kind, chosen, per_class)


def splits(
    spec: Mapping[str, Any], train: str = "train", test: Sequence[str] = ("test",)
) -> tuple[list[Record], list[Record]]:
    """Records to train and to test on; drawn faces: others of the same collection.

    Raises:
      UserError: a source that cannot be opened, or one person in both.
    """
    if spec["kind"] == "synthetic":
        count = spec["count"]
        start = spec.get("offset", 0) + -(-count // 4) * 4  # see SyntheticFaces
        parts = [spec, {**spec, "offset": start, "count": max(1, count // 4)}]
    else:
        parts = [{**spec, "split": name} for name in (train, *test)]
    opened = [sources.open_source(part) for part in parts]
    first, *others = [[source[i] for i in range(len(source))] for source in opened]
    held = [record for records in others for record in records]
    check_apart(first, held)
    return first, held


def check_apart(train: Sequence[Record], test: Sequence[Record]) -> None:
    """Refuses a test set with people of the training set.

    Raises:
      UserError: there are some; how many, not who.
    """
    people = [{r.identity for r in part} - {None} for part in (train, test)]
    if both := people[0] & people[1]:
        raise UserError(
            f"{len(both)} people are in the training and in the test pictures; split "
            "them by person"
        )


def _select(records: Sequence[Record], task: Task, most: int, what: str):
    """The usable records, of each class at most `most` (0 = all)."""
    usable = [r for r in records if task.usable(r)]
    if not usable:
        raise UserError(
            f"none of the {len(records)} {what} pictures has the {task.kind} "
            f"{', '.join(task.names)}; check --images and its splits"
        )
    if not most:
        return usable
    seen: collections.Counter[str] = collections.Counter()
    chosen = []
    for i in np.random.default_rng(0).permutation(len(usable)):
        seen[usable[i].expression] += 1
        if seen[usable[i].expression] <= most:
            chosen.append(usable[i])
    return chosen


def _pictures(records: Sequence[Record], size: int, progress: bool) -> np.ndarray:
    """Pixels uint8 [N,S,S,3] of records."""
    batches = photo_batches.photo_batches(records, size, _BATCH, progress)
    return np.concatenate([pictures for _, pictures in batches])


@functools.partial(jax.jit, static_argnames=("module", "layers"))
def _features(module, layers, params, image_ids) -> jax.Array:
    """Features float32 [B,F,D] of `[CLS] image [SEP]`, of codes int [B,n]."""
    layout = module.config.layout
    nothing = jnp.zeros((len(image_ids), 0), jnp.int32)
    tokens = gptface_model.assemble(image_ids, nothing, module.config)
    tokens = tokens[:, : layout.sep_index + 1]
    chosen = module.apply({"params": params}, tokens, layers, method="layer_states")
    return few_shot.pooled(chosen, layout.image_slice).astype(jnp.float32)


def features(
    network: networks.Network,
    image_ids: np.ndarray,
    layers: Sequence[int] = (),
    progress: bool = False,
) -> np.ndarray:
    """Features of a GPTFace for pictures without a text.

    Args:
      network: the GPTFace.
      image_ids: int [N,h,w].
      layers: numbers from 1 on; none: all.
      progress: show a bar.

    Returns:
      float32 [N,3 * layers,D], see `few_shot.pooled`.

    Raises:
      UserError: a layer that the model does not have.
    """
    depth = network.config.transformer.num_layers
    layers = tuple(layers or range(1, depth + 1))
    for number in layers:
        if not 1 <= number <= depth:
            raise UserError(f"layer {number} is asked for; the model has 1 to {depth}")
    params = jax.device_put(network.params)
    flat = image_ids.reshape(len(image_ids), -1)
    parts = []
    for start in tqdm.trange(0, len(flat), _BATCH, disable=not progress):
        part = flat[start : start + _BATCH]
        padded = batching.filled(part, _BATCH)
        found = _features(network.module, layers, params, padded)
        parts.append(np.asarray(found)[: len(part)])
    return np.concatenate(parts)


def untrained(model: Model, seed: int = 0) -> networks.Network:
    """A model's GPTFace before its first step.

    Its code embeddings start from the tokenizer's codebook where the model's did.
    """
    network = model.editor.gptface
    module, layout = network.module, network.config.layout
    key = jax.random.key(seed)
    tokens = jnp.zeros((1, layout.length), jnp.int32)
    params = sharding.unbox(module.init(key, tokens, method="init_all")["params"])
    data = networks.experiment(network, "gptface").get("data", {})
    if data.get("codebook_init"):
        codebook = jnp.asarray(model.editor.vqgan.network.params["codebook"])
        size = network.config.vocab.text_size
        key = trees.stream(key, "codebook")
        table = params["tokens"]["embedding"]
        table = nn_tokens.with_codebook(table, codebook, size, key)
        params = {**params, "tokens": {**params["tokens"], "embedding": table}}
    return dataclasses.replace(network, params=params, digest="untrained")


def _head(outputs: int, shape: tuple[int, ...]) -> tuple[Callable, Callable]:
    """Functions (forward, init) of `PooledHead` on features [F,D]."""
    module = PooledHead(outputs)

    def forward(params, x, key):
        del key
        return module.apply({"params": params}, x)

    def init(key):
        return sharding.unbox(module.init(key, jnp.zeros((1, *shape)))["params"])

    return forward, init


def _cnn(names: tuple[str, ...], size: int) -> tuple[Callable, Callable]:
    """Functions (forward, init) of the judge's network on uint8 pictures."""
    config = ClassifierConfig(size, names, _CNN_CHANNELS)
    module = Classifier(config)

    def forward(params, x, key):
        x = x.astype(jnp.float32) / 127.5 - 1.0
        rngs = None
        if key is not None:
            mirrored = jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1))
            x = jnp.where(mirrored, x[:, :, ::-1], x)
            rngs = {"dropout": trees.stream(key, "dropout")}
        return module.apply({"params": params}, x, deterministic=key is None, rngs=rngs)

    def init(key):
        return sharding.unbox(module.init(key, jnp.zeros((1, size, size, 3)))["params"])

    return forward, init


def _check(models, task: Task, fractions, seeds, how, baselines) -> None:
    """Refuses what `probe` cannot do."""
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise UserError(f"fraction {fraction} is not above 0 and up to 1")
    if not (models and fractions and seeds):
        raise UserError("a probe needs a model, a fraction and a seed")
    if min(seeds) < 0 or how.epochs < 0 or task.per_class < 0:
        raise UserError(
            f"seeds {list(seeds)}, epochs {how.epochs} and {task.per_class} pictures a "
            "class must not be negative"
        )
    for name in baselines:
        if name not in BASELINES:
            raise UserError(
                f"baseline '{name}' is unknown{nearest(name, BASELINES)}; use "
                + ", ".join(BASELINES)
            )
        if name in models:
            raise UserError(f"a model is named '{name}', as a baseline; rename it")


def _curve(labels, fractions, seeds, how, made, inputs, together=True):
    """`few_shot.learning_curve` of (forward, init) on inputs of both parts."""
    examples = [few_shot.Examples(x, y) for x, y in zip(inputs, labels)]
    return few_shot.learning_curve(
        *made, *examples, fractions, seeds, how, together=together
    )


def _curves(
    models: Mapping[str, Model],
    task: Task,
    parts: Sequence[Sequence[Record]],
    curve: Callable[..., Any],
    layers: Sequence[int],
    baselines: Sequence[str],
    progress: bool,
) -> dict[str, Any]:
    """Learning curves by backbone, of which the heads alone are trained."""
    pictures = functools.cache(
        lambda size: [_pictures(part, size, progress) for part in parts]
    )
    first = next(iter(models.values()))
    backbones = {name: (m, m.editor.gptface) for name, m in models.items()}
    if "random" in baselines:
        backbones["random"] = (first, untrained(first))
    codes: dict[str, list[np.ndarray]] = {}
    curves = {}
    for name, (model, network) in backbones.items():
        digest = model.editor.vqgan.network.codes_digest
        if digest not in codes:
            shown = pictures(model.editor.size)
            codes[digest] = [model.editor.image_ids(x) for x in shown]
        inputs = [features(network, ids, layers, progress) for ids in codes[digest]]
        head = _head(len(task.names), inputs[0].shape[1:])
        curves[name] = curve(head, inputs)
    if "cnn" in baselines:
        size = first.editor.size
        # One after another: a batch of networks has no fast convolution.
        curves["cnn"] = curve(_cnn(task.names, size), pictures(size), together=False)
    return curves


def probe(
    models: Mapping[str, Model],
    task: Task,
    train: Sequence[Record],
    test: Sequence[Record],
    fractions: Sequence[float],
    seeds: Sequence[int] = (0, 1, 2),
    *,
    training: few_shot.Training | None = None,
    layers: Sequence[int] = (),
    baselines: Sequence[str] = BASELINES,
    progress: bool = True,
) -> dict[str, Any]:
    """Accuracy of heads on frozen backbones by the share of labels they see.

    Args:
      models: name -> model; what "random" starts from is the first one.
      task: what is asked.
      train, test: records, people apart.
      fractions: of the training pictures, above 0 and up to 1.
      seeds: of subset, start and order.
      training: of heads and CNN; default `few_shot.Training()`.
      layers: of the backbones that are pooled; none: all.
      baselines: of "random" (the first model untrained), "cnn" (trained from scratch
        on the labelled pictures), "majority" (the most common label).
      progress: show bars.

    Returns:
      {"task", "names", "train", "test": numbers of pictures, "balanced": how many
      attributes a balanced accuracy is taken of, "curves": backbone -> fraction ->
      scores by seed, "rows": `few_shot.summary`}.

    Raises:
      UserError: fractions, seeds, baselines or pictures that cannot be used.
    """
    how = training or few_shot.Training()
    _check(models, task, fractions, seeds, how, baselines)
    parts = [
        _select(train, task, task.per_class, "training"),
        _select(test, task, -(-task.per_class // 4), "test"),
    ]
    labels = [task.labels(part) for part in parts]
    curve = functools.partial(_curve, labels, fractions, seeds, how)
    curves = _curves(models, task, parts, curve, layers, baselines, progress)
    if "majority" in baselines:
        nothing = [few_shot.Examples(np.zeros(len(y)), y) for y in labels]
        curves["majority"] = few_shot.majority(*nothing, fractions, seeds)
    result = {
        "task": task.kind,
        "names": list(task.names),
        "train": len(parts[0]),
        "test": len(parts[1]),
        "curves": curves,
        "rows": few_shot.summary(curves),
    }
    if task.kind == "attributes":
        result["balanced"] = len(few_shot.balanced_attributes(labels[1]))
    return result


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation of every backbone and fraction, in percent."""
    lines = [f"{'backbone':<16}{'labels':>8}  {'accuracy':>14}  {'balanced':>14}"]
    for row in rows:
        shown = [
            f"{100 * row[m]:7.2f} ± {100 * row[f'{m}_std']:4.2f}"
            for m in ("accuracy", "balanced_accuracy")
        ]
        share = f"{100 * row['fraction']:g} %"
        lines.append(f"{row['backbone']:<16}{share:>8}  {shown[0]:>14}  {shown[1]:>14}")
    return "\n".join(lines)
