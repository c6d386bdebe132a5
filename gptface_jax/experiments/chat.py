"""Experiments that train a FaceGPT whose answers end in face tokens (SPEC D.3).

One set of weights is a FaceGPT, with all that `experiments.facegpt` trains, and a
prefix language model: after a rendered face and what is asked of it come the words of
the answer, and where a head is asked for, its codes. A third of the sequences ends
without one, so that the model learns to say when.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core.config import from_mapping, part_of, to_mapping
from gptface_jax.core.types import Evaluation, Feed, Phase, System
from gptface_jax.data import attribute_questions, label_templates
from gptface_jax.data.face3d_examples import AnswerExample
from gptface_jax.data.task_examples import TaskTransform
from gptface_jax.data.tasks import AND_HEAD, PROMPTS, vocabulary_texts
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import (
    base,
    facegpt,
    gptface,
    opening,
    registry,
    starting,
    talk2face,
    token_data,
)
from gptface_jax.experiments.facegpt import FaceConfig, GPTFaceWithFaces
from gptface_jax.nn.prefix_lm import PrefixLMConfig, is_face, is_image
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems import talk2face as talk2face_system
from gptface_jax.systems.facegpt import spoken
from gptface_jax.systems.facegpt.coefficients import ENTRIES
from gptface_jax.systems.facegpt.objective import RENDERED
from gptface_jax.systems.talk2face import objective as sequence_objective

ANSWERS = "answers"
# What is said of a picture; twice as often with a head as without.
TASKS = ("image_to_caption", "image_to_attributes")
_WITH_HEAD = (True, True, False)
# Records whose labels say what can be asked.
_LOOKED_AT = 200


@dataclasses.dataclass(frozen=True)
class ChatConfig(FaceConfig):
    """The model: besides what a FaceGPT with GPTFace's parameters has

    Attributes:
      segments: rows of the segment table; other sequences use row 0.
      length: most positions of a sequence with an answer.
    """

    segments: int = 3
    length: int = 128

    def __post_init__(self):
        super().__post_init__()
        spoken.ranges(self)  # refuses heads that are no codes
        _ = self.sequences  # which checks the rest

    @property
    def sequences(self) -> PrefixLMConfig:
        """The prefix language model, whose image tokens have GPTFace's positions."""
        return part_of(
            self, PrefixLMConfig, grid=self.layout.grid, positions="by_modality"
        )


@dataclasses.dataclass(frozen=True)
class ChatObjective(facegpt.Objective):
    """Loss weights and options: besides those of a FaceGPT

    Attributes:
      answers: next-token prediction.
      answers_weight: of it.
    """

    answers: sequence_objective.ObjectiveConfig = sequence_objective.ObjectiveConfig(
        pooled=False
    )
    answers_weight: float = 1.0


def make(config: Mapping[str, Any], attributes: tuple[str, ...] = ()) -> System:
    """The system of an experiment config; see `facegpt.make`."""
    model = from_mapping(ChatConfig, config["model"], "model.")
    objective = from_mapping(ChatObjective, config["objective"], "objective.")
    parts = facegpt.parts(config, model, objective, attributes)
    faces, _ = parts["faces"]
    answers = _answers(config, model, objective, faces.feeds[RENDERED].spec)
    parts[ANSWERS] = answers, objective.answers_weight
    return dataclasses.replace(base.together(parts), name="chat")


def _answers(
    config: Mapping[str, Any], model: ChatConfig, objective: ChatObjective,
    faces: Mapping[str, Any],
) -> System:  # fmt: skip
    """The sequence model, whose batches are completed by the codes inside the step.

    Args:
      faces: spec of an example of rendered faces.
    """
    wanted = to_mapping(objective.answers)
    sequences = talk2face_system.make_system(
        {**config, "model": to_mapping(model.sequences), "objective": wanted}
    )
    encode, _ = facegpt.encoder(base.data_config(config), model)
    fill = _filling(model, encode)
    (phase,) = sequences.phases
    scored = sequences.evaluations["eval"].metrics
    picture = "image_ids" if encode is None else "image"
    spec = {n: faces[n] for n in (*ENTRIES.values(), picture)}
    spec |= talk2face_system.sequence_spec(model.sequences)

    def loss_fn(params, state, constants, batches, key, step):
        batch = fill(params, constants, batches[ANSWERS])
        batches = {sequence_objective.FEED: batch}
        return phase.loss(params, state, constants, batches, key, step)

    def metrics(params, state, constants, batch, key):
        batch = fill(params, constants, batch)
        return scored(params, state, constants, batch, key)

    return dataclasses.replace(
        sequences,
        feeds={ANSWERS: Feed(spec, config["batch_size"])},
        phases=(Phase("", ".*", loss_fn),),
        evaluations={"eval": Evaluation(metrics, spec)},
    )


def _filling(model: ChatConfig, encode: Any):
    """Function that puts the codes of picture and head where they belong."""
    module, vocab = GPTFaceWithFaces(model), model.vocab

    def fill(params, constants, batch):
        if encode is None:
            codes = batch["image_ids"]
        else:
            codes = jax.lax.stop_gradient(encode(constants, batch["image"]))
        coeffs = {entry: batch[entry] for entry in ENTRIES.values()}
        heads = spoken.tokens_of(module, params, coeffs)
        tokens = batch["tokens"]
        tokens = placed(tokens, is_image(tokens, vocab), vocab.image_to_joint(codes))
        return {**batch, "tokens": placed(tokens, is_face(tokens, vocab), heads)}

    return fill


def placed(tokens: jax.Array, where: jax.Array, values: jax.Array) -> jax.Array:
    """Tokens [B,L] whose places `where`, as many as values [B,n] or none, hold these.

    tokens 5 9 9 6, where . x x ., values 1 2 -> 5 1 2 6
    """
    number = jnp.clip(jnp.cumsum(where, axis=1) - 1, 0, values.shape[1] - 1)
    return jnp.where(where, jnp.take_along_axis(values, number, axis=1), tokens)


def _prepare(config: Any, data: base.DataConfig, workdir: Any) -> TextTokenizer:
    """The vocabulary of texts of rendered faces, and of what may be asked of them."""
    table = label_templates.open_table(data.label_sets)

    def asked(records) -> list[str]:
        texts = vocabulary_texts(talk2face.used(records, table))
        # As often as a piece must be met to be learnt.
        return 50 * [*texts, *(PROMPTS[task] + AND_HEAD for task in TASKS)]

    return facegpt.prepare(config, data, workdir, asked)


def _build(
    config: Any, data: base.DataConfig, tokenizer: TextTokenizer
) -> base.Experiment:
    config = config.copy_and_resolve_references()
    token_data.set_vocab(config, tokenizer)
    gptface.fit_length(config)
    values = talk2face.fitted(config)
    model = from_mapping(ChatConfig, values["model"], "model.")
    found = facegpt.examples(data, tokenizer, model)
    rendered, held_out = found.feeds[RENDERED], found.held_out["faces"]
    if held_out is not None:
        held_out = records_of(held_out, tokenizer, model, data, data.eval_captions)
    return base.experiment(
        config,
        data,
        make(values, attribute_questions.ATTRIBUTES),
        {**found.feeds, ANSWERS: records_of(rendered, tokenizer, model, data)},
        {**found.held_out, ANSWERS: held_out},
        extra_files={**found.files, talk2face.LABEL_SETS: _labels(rendered, data)},
    )


def records_of(
    faces: base.Records, tokenizer: TextTokenizer, model: ChatConfig,
    data: base.DataConfig, captions: Any = None,
) -> base.Records:  # fmt: skip
    """Sequences with answers about rendered faces.

    Args:
      faces: the faces and their examples.
      tokenizer: of the text.
      model: that is trained.
      data: section of the config.
      captions: options of the sentences; default the training's.
    """
    options = dataclasses.replace(data.tasks, captions=captions or data.captions)
    table = label_templates.open_table(data.label_sets)
    tail = tuple(start for start, _ in spoken.ranges(model))
    tasks = tuple(
        TaskTransform(
            task, tokenizer, model.vocab, model.length, options, table,
            tail if head else (),
        )
        for task in TASKS
        for head in _WITH_HEAD
    )  # fmt: skip
    grid = tuple(model.layout.grid)
    return base.Records(faces.source, AnswerExample(faces.transform, tasks, grid))


def _labels(faces: base.Records, data: base.DataConfig) -> bytes:
    """Content of label_sets.json: what may be asked."""
    source, table = faces.source, label_templates.open_table(data.label_sets)
    step = -(-len(source) // _LOOKED_AT)
    some = [source[i] for i in range(0, len(source), step)]
    return talk2face.learnt_labels(talk2face.used(some, table), data.tasks)


def _part(network: Network, name: str, model: Any) -> Network:
    """The network as that of another system, on some or all of its parameters."""
    alone = functools.partial(_config_of, name=name, model=model)
    return opening.as_part(network, "chat", name, model, alone)


def _config_of(config: Mapping[str, Any], name: str, model: Any) -> dict[str, Any]:
    """The experiment config as if that system alone were trained."""
    objective = dict(config["objective"])
    answers = objective.pop(ANSWERS, {})
    objective.pop("answers_weight", None)
    objective = answers if isinstance(model, PrefixLMConfig) else objective
    given = {"system": name, "model": to_mapping(model), "objective": objective}
    return {**config, **given}


def _as_facegpt(network: Network) -> Network:
    return _part(network, "facegpt", part_of(network.config, FaceConfig))


ROW = registry.Row(
    config=ChatConfig,
    module=GPTFaceWithFaces,
    inputs=facegpt.ROW.inputs,
    method=facegpt.ROW.method,
    make=make,
    prepare=_prepare,
    build=_build,
    start=starting.started,
    starts_from=("gptface", "facegpt"),
    parts={
        "gptface": lambda network: facegpt.ROW.parts["gptface"](_as_facegpt(network)),
        "talk2face": lambda n: _part(n, "talk2face", n.config.sequences),
        "facegpt": _as_facegpt,
    },
    note=gptface.note,
    beside=("vqgan",),
    files=(*facegpt.ROW.files, talk2face.LABEL_SETS),
    facade="gptface_jax.apps.face3d_api:open_chat",
    verbs=("ask_with_head",),
    guide="docs/facegpt.md",
)
