"""Experiments that train a FaceGPT: rendered faces, photographs, older tasks beside.

A step draws rendered heads whose truth is known, photographs with landmarks where the
config names some, and, so that nothing is forgotten, pairs of GPTFace (SPEC D.6). The
parameters are GPTFace's, with rows for the face tokens and heads on them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.config import from_mapping, part_of, to_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import System
from gptface_jax.data import attribute_questions, transforms
from gptface_jax.data.face3d_examples import FaceExample
from gptface_jax.data.facemodel import FaceModel, open_model, opening
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import (
    base,
    gptface,
    gptface_run,
    registry,
    starting,
    token_data,
)
from gptface_jax.experiments import opening as networks
from gptface_jax.ops import morphable
from gptface_jax.pipelines import faces3d, upright
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems import facegpt
from gptface_jax.systems import gptface as gptface_system
from gptface_jax.systems.facegpt.model import FaceGPT, FaceGPTConfig
from gptface_jax.systems.facegpt.objective import PHOTOS, RENDERED
from gptface_jax.systems.facegpt.objective import ObjectiveConfig as FaceObjective
from gptface_jax.systems.gptface.model import GPTFace, GPTFaceConfig
from gptface_jax.systems.gptface.objective import ObjectiveConfig
from gptface_jax.train import settings

PAIRS = "pairs"
# In a run's and a model's folder: the face model that coefficients are of.
FACE_MODEL = "face_model.npz"
# What a source of heads might be, for messages.
HEADS = {
    "rendered faces": {"kind": "rendered", "count": 4000, "size": 64},
    "what `gptface prepare` wrote": {
        "kind": "arrayrecord",
        "path": "pictures/rendered",
    },
}


@dataclasses.dataclass(frozen=True)
class FaceConfig(GPTFaceConfig, FaceGPTConfig):
    """GPTFace with face tokens."""

    def __post_init__(self):
        GPTFaceConfig.__post_init__(self)
        FaceGPTConfig.__post_init__(self)

    @property
    def pairs(self) -> GPTFaceConfig:
        """GPTFace as it is trained on pairs."""
        return part_of(self, GPTFaceConfig)


class GPTFaceWithFaces(GPTFace, FaceGPT):
    """All parameters: GPTFace's, and the heads on face tokens."""

    config: FaceConfig

    def init_faces(self, tokens: jax.Array):
        """Touches every parameter; pass as `method` to `init`."""
        return GPTFace.init_all(self, tokens), FaceGPT.init_faces(self, tokens)


@dataclasses.dataclass(frozen=True)
class Objective:
    """Loss weights and options.

    Attributes:
      faces: 3D faces.
      pairs: GPTFace's, where the data name pairs.
      retention: weight of the latter.
    """

    faces: FaceObjective = FaceObjective()
    pairs: ObjectiveConfig = ObjectiveConfig()
    retention: float = 1.0


def make(config: Mapping[str, Any], attributes: tuple[str, ...] = ()) -> System:
    """The system of an experiment config; opens its face model, and its tokenizer."""
    model = from_mapping(FaceConfig, config["model"], "model.")
    objective = from_mapping(Objective, config["objective"], "objective.")
    return base.together(parts(config, model, objective, attributes))


def parts(
    config: Mapping[str, Any], model: FaceConfig, objective: Objective,
    attributes: tuple[str, ...] = (),
) -> dict[str, tuple[System, float]]:  # fmt: skip
    """The systems of an experiment config with their weights, "faces" first."""
    data = base.data_config(config)
    basis = _basis(face_model(data, model))
    encode, constants = encoder(data, model)
    size = config["batch_size"]
    feeds = {RENDERED: size}
    if data.train.get(PHOTOS):
        feeds = {RENDERED: size // 2, PHOTOS: size - size // 2}
    faces = facegpt.make_system(
        {**config, "objective": to_mapping(objective.faces)}, basis, feeds,
        _image_size(data, model), encode, constants, GPTFaceWithFaces(model),
    )  # fmt: skip
    found = {"faces": (faces, 1.0)}
    if data.train.get(PAIRS):
        pairs = gptface_system.make_system(
            {
                **config, "model": to_mapping(model.pairs),
                "objective": to_mapping(objective.pairs),
            },
            attributes=attributes,
        )  # fmt: skip
        found[PAIRS] = pairs, objective.retention
    return found


def face_model(data: base.DataConfig, model: FaceGPTConfig) -> FaceModel:
    """The face model of a config, with as many modes of identity as the heads have."""
    return open_model(data.face_model, data.face_vertices, model.faces.identity)


def _basis(model: FaceModel) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(model, name)) for name in morphable.ARRAYS}


def encoder(data: base.DataConfig, model: FaceGPTConfig):
    """Function that encodes pictures inside the step, and its parameters by name.

    None and {} where examples have codes of colours.

    Raises:
      UserError: one of other codes.
    """
    if data.image_ids == "palette":
        return None, {}
    network = _vqgan(data)
    theirs = network.config.grid, network.config.codebook_size
    ours = tuple(model.layout.grid), model.vocab.codebook_size
    if theirs != ours:
        raise UserError(
            f"data.tokenizer makes {theirs[0]} tokens of {theirs[1]} codes; the model "
            f"has {ours[0]} of {ours[1]}; change model.layout.grid and "
            "model.vocab.codebook_size"
        )

    def encode(constants, image):
        ids = network.module.apply(
            {"params": constants["tokenizer"]}, image, method="encode"
        )
        return ids.reshape(len(image), -1)

    return encode, {"tokenizer": network.params}


def _image_size(data: base.DataConfig, model: FaceGPTConfig) -> int:
    """Side of the pictures that the model is given."""
    if data.image_ids == "palette":
        return 8 * model.layout.grid[0]
    return _vqgan(data).config.factor * model.layout.grid[0]


def _vqgan(data: base.DataConfig) -> Network:
    """The tokenizer.

    Raises:
      UserError: none is named, or there is none.
    """
    if not data.tokenizer:
        raise UserError(
            "data.tokenizer is not set, and pictures are made codes while they are "
            'trained on; set it to the VQGAN of init_from, such as "demo64"'
        )
    return networks.open_network(data.tokenizer, "vqgan")


def _part(data: base.DataConfig, name: str) -> base.DataConfig:
    """The data of one feed."""
    held_out = (data.eval or {}).get(name)
    return dataclasses.replace(data, train=data.train[name], eval=held_out)


def prepare(
    config: Any, data: base.DataConfig, workdir: Any, more: Any = None
) -> TextTokenizer:
    """The vocabulary of the texts of rendered faces; more: records -> further ones."""
    if RENDERED not in data.train:
        raise UserError(
            f"data.train names {', '.join(data.train)}; it takes '{RENDERED}' and "
            f"perhaps '{PHOTOS}' and '{PAIRS}', each a source"
        )
    # Which says what to do where there are none, unlike the vocabulary's own look.
    base.open_source(f"data.train.{RENDERED}", data.train[RENDERED], HEADS, False)

    def said(records) -> list[str]:
        texts = [text for r in records for text in (r.texts or (r.text,))]
        return [*texts, *(more(records) if more else ())]

    return token_data.text_tokenizer(config, _part(data, RENDERED), workdir, said)


def _build(
    config: Any, data: base.DataConfig, tokenizer: TextTokenizer
) -> base.Experiment:
    config = config.copy_and_resolve_references()
    token_data.set_vocab(config, tokenizer)
    gptface.fit_length(config)
    values = settings.plain(config)
    model = from_mapping(FaceConfig, values["model"], "model.")
    found = examples(data, tokenizer, model)
    return base.experiment(
        config, data, make(values, attribute_questions.ATTRIBUTES), found.feeds,
        found.held_out, extra_files=found.files,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Examples:
    """The data of a FaceGPT.

    Attributes:
      feeds: records of each feed.
      held_out: of each evaluation; None where there are none.
      files: that a run keeps.
    """

    feeds: Mapping[str, base.Records]
    held_out: Mapping[str, base.Records | None]
    files: Mapping[str, bytes]


def examples(
    data: base.DataConfig, tokenizer: TextTokenizer, model: FaceConfig
) -> Examples:
    """Rendered faces, photographs and pairs, as the config names them.

    Args:
      data: section of the config.
      tokenizer: of the text.
      model: that is trained.

    Raises:
      UserError: data that cannot be opened, or that are not the model's.
    """
    heads = face_model(data, model)

    def faces(name: str, evaluated: bool = False):
        key, specs = ("eval", data.eval) if evaluated else ("train", data.train)
        source = base.open_source(f"data.{key}.{name}", specs[name], HEADS)
        options = data.eval_captions if evaluated else data.captions
        return base.Records(source, _example(data, model, tokenizer, heads, options))

    feeds = {n: faces(n) for n in (RENDERED, PHOTOS) if data.train.get(n)}
    evaluated = bool((data.eval or {}).get(RENDERED))
    held_out = {"faces": faces(RENDERED, True) if evaluated else None}
    digest = None
    if data.image_ids != "palette":
        digest = _vqgan(data).codes_digest
    files = {"vocab.txt": tokenizer.vocab_text().encode()}
    frame = upright.FRAME  # of the bundled GPTFace
    if data.train.get(PAIRS):
        pairs = dataclasses.replace(_part(data, PAIRS), tokenizer="")  # no previews
        found = gptface.examples(pairs, tokenizer, model.pairs)
        if found.codes.digest not in (None, digest):
            raise UserError(
                f"data.train.{PAIRS} are codes of tokenizer {found.codes.digest} and "
                f"data.tokenizer is {digest}; run `gptface tokenize` with that one"
            )
        feeds[PAIRS], held_out[PAIRS] = found.records, found.held_out
        manifest = json.loads(found.codes.files.get("manifest.json", "{}"))
        frame = manifest.get("frame", frame)
    files |= _files(data, heads, digest, frame)
    return Examples(feeds, held_out, files)


def _example(data, model: FaceGPTConfig, tokenizer, heads: FaceModel, captions):
    palette = None
    if data.image_ids == "palette":
        levels = transforms.palette_levels(model.vocab.codebook_size)
        palette = transforms.PaletteIds((), model.layout.grid, levels)
    faces = model.faces
    sizes = {
        "id_coeffs": (faces.identity,), "exp_coeffs": (faces.expression,),
        "albedo_coeffs": (faces.albedo,), "sh_light": (9, 3), "pose": (6,),
    }  # fmt: skip
    return FaceExample(
        _image_size(data, model), tokenizer, model.layout.max_text_tokens, sizes,
        heads.digests, captions, palette,
    )  # fmt: skip


def _files(
    data: base.DataConfig, heads: FaceModel, digest: str | None, frame: Any
) -> dict[str, bytes]:
    """Files that a run keeps: its face model, and the tokenizer with this digest.

    Beside the frame of heads stands that in which the GPTFace that it is as well has
    faces.
    """
    files = {FACE_MODEL: opening.packed(heads, data.face_model, data.face_vertices)}
    if digest is not None:
        known = {
            "tokenizer_digest": digest,
            "frame": faces3d.mean_frame(heads).tolist(),
            "pairs_frame": frame,
        }
        files["manifest.json"] = json.dumps(known).encode()
    return files


def _pairs_config(config: Mapping[str, Any], model: GPTFaceConfig) -> dict[str, Any]:
    """The experiment config as if GPTFace alone were trained."""
    data = {**config["data"], "train": config["data"]["train"].get(PAIRS) or {}}
    return {
        **config,
        "system": "gptface",
        "model": to_mapping(model),
        "objective": config["objective"].get(PAIRS, {}),
        "data": data,
    }


def _as_pairs(network: Network) -> Network:
    """The network as a GPTFace."""
    model = network.config.pairs
    alone = functools.partial(_pairs_config, model=model)
    found = networks.as_part(network, "facegpt", "gptface", model, alone)
    return gptface_run.with_learnt_options(found)


ROW = registry.Row(
    config=FaceConfig,
    module=GPTFaceWithFaces,
    inputs=lambda config: (jnp.zeros((1, config.layout.length), jnp.int32),),
    method="init_faces",
    make=make,
    prepare=prepare,
    build=_build,
    start=starting.started,
    starts_from=("gptface",),
    parts={"gptface": _as_pairs},
    note=gptface.note,
    beside=("vqgan",),
    files=("vocab.txt", FACE_MODEL),
    facade="gptface_jax.apps.face3d_api:open_model",
    verbs=("face3d",),
    guide="docs/facegpt.md",
)
