"""Training runs made into a model directory, or a checkpoint of another project."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax import __version__
from gptface_jax.apps import model_cards
from gptface_jax.core import files, trees
from gptface_jax.core.config import to_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import gptface_run, opening, registry, starting
from gptface_jax.interop import directory, state_dict, taming, tencent
from gptface_jax.nn.vqgan import VQGANConfig
from gptface_jax.pipelines import framing, networks, strength
from gptface_jax.pipelines.editing_model import decode_options
from gptface_jax.pipelines.sequence_model import drawing_options


def export(
    gptface: str | os.PathLike,
    tokenizer: str | os.PathLike,
    out: str | os.PathLike,
    *,
    description: str = "",
    card: str | os.PathLike | None = None,
    decode: Mapping[str, Any] | None = None,
    frame: Sequence[Sequence[float]] | None = None,
    attributes: Sequence[str] | None = None,
    license: str | None = None,
    dtype: str = "bfloat16",
    step: str | int | None = "best",
) -> dict[str, float]:
    """Writes a model directory that `gptface_jax.load` opens.

    Args:
      gptface: training run of the transformer, or a model directory, whose decoder
        options stay.
      tokenizer: training run of the VQGAN that made its token cache, or of one with
        the same codes and a better decoder.
      out: new folder.
      description: first paragraph of the model card.
      card: a file that replaces the generated model card.
      decode: recommended fields of `DecodeConfig`; the others are those that suit
        what the transformer has learnt.
      frame: where its pictures show a face, see `Model`; default what its token cache
        or model directory says.
      attributes: that the page offers sliders for; default those of the model
        directory, else six of CelebA's.
      license: of the weights, which `load` says; default that of a model directory.
      dtype: of the weights, "bfloat16" or "float32".
      step: checkpoint of the transformer: "best", None = latest, or a number.

    Returns:
      {"vqgan": parameters in millions, "gptface": parameters in millions}.

    Raises:
      UserError: networks that do not belong together, or an attribute without words.
    """
    if attributes:
        strength.directions(dict.fromkeys(attributes, 0))  # or it says which
    vqgan, model, decode = _pair(gptface, tokenizer, step, decode or {})
    text = TextTokenizer.from_vocab_text(
        model.meta["extra_files"]["vocab.txt"].decode()
    )
    frame = gptface_run.learnt_frame(model) if frame is None else frame
    frame = framing.checked_frame(frame)
    kept = {"attributes": attributes and list(attributes), "license": license}
    settings = _settings(vqgan, model, decode, frame, kept)
    both = {"vqgan": vqgan, "gptface": model}
    if card:
        written = pathlib.Path(card).read_bytes()
    else:
        written = _card(both, out, description).encode()
    files = {
        **text.files(model.config.layout.max_text_tokens),
        "README.md": written,
        "training_log.jsonl": _log({"vqgan": tokenizer, "gptface": gptface}),
    }
    weights = {name: network.params for name, network in both.items()}
    directory.write(out, settings, weights, files, dtype)
    return _millions(both)


def _settings(vqgan, model, decode, frame, kept: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of an editor; what `kept` lacks stays as the model has it."""
    options = {**gptface_run.learnt_options(model), **decode}
    kept = {key: value or model.meta.get(key) for key, value in kept.items()}
    return {
        "library_version": __version__,
        "vqgan": to_mapping(vqgan.config),
        "gptface": _stored(model.config),
        "decode": dataclasses.asdict(decode_options(options)),
        **({} if frame is None else {"frame": plain_frame(frame)}),
        **{key: value for key, value in kept.items() if value},
        "training": {
            "vqgan": _portable(vqgan.meta["config"]),
            "gptface": _portable(model.meta["config"]),
        },
    }


def _pair(
    gptface: str | os.PathLike,
    tokenizer: str | os.PathLike,
    step: str | int | None,
    decode: Mapping[str, Any],
) -> tuple[networks.Network, networks.Network, Mapping[str, Any]]:
    """(VQGAN, transformer, decoder options): those of a model directory stay.

    Raises:
      UserError: no training run, or networks that do not belong together.
    """
    if not networks.is_run(tokenizer):
        raise UserError(f"'{tokenizer}' is no training run (it has no checkpoints)")
    vqgan = opening.open_network(tokenizer, "vqgan")
    model = opening.open_network(gptface, "gptface", step)
    if not networks.is_run(gptface):
        decode = {**model.meta.get("decode", {}), **decode}
        model = _as_of_a_run(model, gptface, "gptface")
    gptface_run.check_pair(vqgan, model, gptface)
    return vqgan, model, decode


def _millions(of: Mapping[str, networks.Network]) -> dict[str, float]:
    """Parameters in millions by name of the network."""
    return {name: trees.count(network.params) / 1e6 for name, network in of.items()}


def _card(
    both: Mapping[str, networks.Network], out: str | os.PathLike, description: str
) -> str:
    """The model card of a VQGAN and a transformer."""
    facts = {**_facts(both["vqgan"].config, out), "description": description}
    for name, millions in _millions(both).items():
        meta = both[name].meta
        facts |= {
            f"{name}_millions": millions,
            f"{name}_data": json.dumps(meta["config"]["data"]["train"]),
            f"{name}_step": meta["step"],
            f"{name}_batch": meta["config"]["batch_size"],
        }
    return model_cards.EDITOR.format(**facts, limits=model_cards.LIMITS)


def plain_frame(frame: np.ndarray) -> list[list[float]]:
    """A frame as JSON types."""
    return [[round(float(v), 4) for v in point] for point in frame]


def _as_of_a_run(network: networks.Network, folder, name: str) -> networks.Network:
    """The network of a model directory with the meta of the run it came from."""
    config = network.meta["training"][name]
    row, files = registry.row(name), {}
    for file in row.files:
        files[file] = (networks.locate(folder) / file).read_bytes()
    if row.beside:
        vqgan = opening.open_network(folder, "vqgan")
        manifest = {
            "tokenizer_digest": vqgan.codes_digest, "frame": network.meta.get("frame")
        }  # fmt: skip
        files["manifest.json"] = json.dumps(manifest).encode()
    meta = {"config": config, "step": config["total_steps"], "extra_files": files}
    kept = ("attributes", "license", "synthesis")
    meta |= {k: network.meta[k] for k in kept if k in network.meta}
    return dataclasses.replace(network, meta=meta)


def export_tokenizer(
    tokenizer: str | os.PathLike,
    out: str | os.PathLike,
    *,
    description: str = "",
    card: str | os.PathLike | None = None,
    license: str | None = None,
    dtype: str = "bfloat16",
    step: str | int | None = "best",
) -> dict[str, float]:
    """Writes a model directory that holds a VQGAN alone.

    Args:
      tokenizer: training run of the VQGAN, or a model directory.
      out, description, card, license, dtype: as for `export`.
      step: checkpoint of the run.

    Returns:
      {"vqgan": parameters in millions}.
    """
    vqgan = opening.open_network(tokenizer, "vqgan", step)
    if networks.is_run(tokenizer):
        config = vqgan.meta["config"]
        source = {"training": {"vqgan": config}}
        files = {"training_log.jsonl": _log({"vqgan": tokenizer})}
        origin = (
            f"Trained on `{json.dumps(config['data']['train'])}`, "
            f"{vqgan.meta['step']} steps of {config['batch_size']}."
        )
    else:
        source = {k: vqgan.meta[k] for k in ("imported", "license") if k in vqgan.meta}
        files = {}
        origin = f"From the model directory `{pathlib.Path(tokenizer).name}`."
    facts = {"description": description, "origin": origin}
    source |= {"license": license} if license else {}
    if card:
        files["README.md"] = pathlib.Path(card).read_bytes()
    return write_tokenizer(
        out, vqgan.config, vqgan.params, facts, source=source, files=files, dtype=dtype
    )


def export_run(
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    tokenizer: str | os.PathLike | None = None,
    decode: Mapping[str, Any] | None = None,
    synthesis: Mapping[str, Any] | None = None,
    frame: Sequence[Sequence[float]] | None = None,
    attributes: Sequence[str] | None = None,
    description: str = "",
    card: str | os.PathLike | None = None,
    license: str | None = None,
    dtype: str = "bfloat16",
    step: str | int | None = "best",
) -> dict[str, float]:
    """Writes a model directory of a training run, with its VQGAN where it needs one.

    Args:
      run: of any system; or a model directory, of which everything stays that is not
        given here.
      tokenizer: the VQGAN that made the run's token cache: a training run, model
        directory or bundled name, whose licence the weights inherit.
      decode, attributes: as for `export`, of a network that is a GPTFace as well.
      synthesis: recommended fields of `GenerateConfig` for the pictures of a network
        that is a Talk2Face as well.
      out, frame, description, card, license, dtype: as for `export`.
      step: checkpoint of the run.

    Returns:
      Parameters in millions by network.

    Raises:
      UserError: no such run, a VQGAN that is missing or too many, or options that the
        network does not have.
    """
    if attributes:
        strength.directions(dict.fromkeys(attributes, 0))  # or it says which
    again, held = not networks.is_run(run), opening.networks_of(run)
    if again and held == ["vqgan"]:
        raise UserError(f"'{run}' holds a VQGAN alone; give it as --tokenizer")
    name = next(n for n in held if not again or n != "vqgan")
    row = registry.row(name)
    if again and row.beside and tokenizer is None:
        tokenizer = run
    if bool(row.beside) != bool(tokenizer):
        raise UserError(
            f"a model of '{name}' holds its VQGAN too; give the run's as --tokenizer"
            if row.beside
            else f"a model of '{name}' has no tokenizer; leave --tokenizer out"
        )
    edits, draws = (n == name or n in row.parts for n in ("gptface", "talk2face"))
    if (decode or attributes) and not edits:
        raise UserError(
            f"a model of '{name}' makes no edits; leave --decode and --attributes out"
        )
    if synthesis and not draws:
        raise UserError(
            f"a model of '{name}' draws no pictures after texts; leave --synthesis out"
        )
    network = opening.open_network(run, name, step)
    if again:
        network = _as_of_a_run(network, run, name)
    both = {name: network}
    config, millions = network.meta["config"], trees.count(network.params) / 1e6
    training, log = {name: _portable(config)}, {name: run}
    if tokenizer:
        both["vqgan"] = vqgan = opening.open_network(tokenizer, "vqgan")
        gptface_run.check_pair(vqgan, network, run)
        frame = gptface_run.learnt_frame(network) if frame is None else frame
        license = license or vqgan.meta.get("license")
        training |= _training_of(vqgan)
        log = {"vqgan": networks.locate(tokenizer), **log}
    frame = framing.checked_frame(frame)
    kept = {"attributes": attributes and list(attributes), "license": license}
    options = {key: value or network.meta.get(key) for key, value in kept.items()}
    if edits:
        editor = opening.open_network(run, "gptface", step)
        if again:
            learnt = editor.meta["decode"]
        else:
            learnt = gptface_run.learnt_options(editor)
        checked = decode_options({**learnt, **(decode or {})})
        options["decode"] = dataclasses.asdict(checked)
    if draws:
        wanted = {**network.meta.get("synthesis", {}), **(synthesis or {})}
        options["synthesis"] = wanted and drawing_options(wanted)
    written = model_cards.RUN.format(
        name=pathlib.Path(out).name,
        description=description,
        system=name,
        millions=millions,
        version=__version__,
        data=json.dumps(config["data"]["train"]),
        steps=network.meta["step"],
        batch=config["batch_size"],
        limits=model_cards.LIMITS if edits else model_cards.RARE,
    ).encode()
    if card:
        written = pathlib.Path(card).read_bytes()
    elif again and (old := networks.locate(run) / "README.md").is_file():
        written = old.read_bytes()
    files = {k: network.meta["extra_files"][k] for k in row.files}
    if "vocab.txt" in files:
        text = TextTokenizer.from_vocab_text(files["vocab.txt"].decode())
        layout = getattr(network.config, "layout", None)
        files |= text.files(*([layout.max_text_tokens] if layout else []))
    before = None if again else config.get("init_from")
    files |= {"README.md": written, "training_log.jsonl": _log(log, {name: before})}
    known = {
        "library_version": __version__,
        **{n: _stored(part.config) for n, part in both.items()},
        **({} if frame is None else {"frame": plain_frame(frame)}),
        **{key: value for key, value in options.items() if value},
        "training": training,
    }
    weights = {n: part.params for n, part in both.items()}
    directory.write(out, known, weights, files, dtype)
    return _millions(both)


def _portable(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """An experiment config without the folders of the machine above `init_from`."""
    start = config.get("init_from")
    if not start or not pathlib.Path(start).is_absolute():
        return config
    return {**config, "init_from": pathlib.Path(start).name}


def _stored(config: Any) -> dict[str, Any]:
    """Config of a network as a model directory holds it: its products in float32.

    Rounded products are for training on processors that have them; what a model answers
    is not to depend on where it was trained.
    """

    def plain(value):
        if not isinstance(value, Mapping):
            return value
        return {k: plain(v) for k, v in value.items() if k != "matmul_dtype"}

    return plain(to_mapping(config))


def _training_of(vqgan: networks.Network) -> dict[str, Any]:
    """{"vqgan": experiment config that it was trained by}, where that is known."""
    config = vqgan.meta.get("config") or vqgan.meta.get("training", {}).get("vqgan")
    return {"vqgan": config} if config else {}


def write_tokenizer(
    out: str | os.PathLike,
    config: VQGANConfig,
    params: Any,
    facts: Mapping[str, str],
    *,
    source: Mapping[str, Any],
    files: Mapping[str, bytes],
    dtype: str,
) -> dict[str, float]:
    """Writes a model directory that holds a VQGAN alone.

    Args:
      out: new folder.
      config, params: of the VQGAN.
      facts: "description" and "origin" for the model card.
      source: what config.json says of where the VQGAN is from.
      files: name -> content; a README.md replaces the generated card.
      dtype: of the weights, "bfloat16" or "float32".

    Returns:
      {"vqgan": parameters in millions}.
    """
    millions = {"vqgan": trees.count(params) / 1e6}
    card = model_cards.TOKENIZER.format(
        **_facts(config, out), vqgan_millions=millions["vqgan"], **facts
    )
    settings = {"library_version": __version__, "vqgan": to_mapping(config), **source}
    files = {"README.md": card.encode(), **files}
    directory.write(out, settings, {"vqgan": params}, files, dtype)
    return millions


def export_taming(
    tokenizer: str | os.PathLike,
    out: str | os.PathLike,
    step: str | int | None = "best",
) -> dict[str, float]:
    """Writes a VQGAN as a checkpoint of taming-transformers, with its YAML.

    Args:
      tokenizer: training run of the VQGAN, or a model directory.
      out: FILE.ckpt or FILE.safetensors; FILE.yaml comes beside it.
      step: checkpoint of the run.

    Returns:
      {"vqgan": parameters in millions}.

    Raises:
      UserError: a network that taming cannot build, files that exist, or another
        ending.
    """
    state_dict.check(out)
    vqgan = opening.open_network(tokenizer, "vqgan", step)
    taming.save(out, vqgan.config, vqgan.params)
    return {"vqgan": trees.count(vqgan.params) / 1e6}


def export_tencent(
    run: str | os.PathLike,
    out: str | os.PathLike,
    step: str | int | None = "best",
) -> dict[str, float]:
    """Writes a Talk2Face for TencentPretrain, with its options and vocabulary.

    Args:
      run: training run of a Talk2Face, or a model directory.
      out: FILE.bin or FILE.safetensors; FILE.json, which `gptface import --format
        tencent` reads with it, and FILE.vocab.txt come beside it.
      step: checkpoint of the run.

    Returns:
      {"talk2face": parameters in millions}.

    Raises:
      UserError: a network that theirs cannot be, files that exist, or another ending.
    """
    state_dict.check(out)
    network = opening.open_network(run, "talk2face", step)
    out = pathlib.Path(out)
    options, words = out.with_suffix(".json"), out.with_suffix(".vocab.txt")
    for path in (out, options, words):
        if path.exists():
            raise UserError(f"'{path}' already exists; choose another name")
    config = network.config
    tencent.save(out, config, network.params)
    theirs = json.dumps(tencent.their_config(config), indent=2)
    files.write_text(options, f"{theirs}\n")
    files.write_text(words, starting.vocabulary_of(run).vocab_text())
    return {"talk2face": trees.count(network.params) / 1e6}


def _facts(config: VQGANConfig, out: str | os.PathLike) -> dict[str, Any]:
    """Values that every model card holds."""
    return {
        "name": pathlib.Path(out).name,
        "version": __version__,
        "size": config.resolution,
        "grid": "x".join(map(str, config.grid)),
        "codes": config.codebook_size,
    }


def _log(
    runs: Mapping[str, str | os.PathLike],
    before: Mapping[str, str | os.PathLike | None] | None = None,
) -> bytes:
    """The runs' metrics, one JSON object a line, with the run's name.

    Args:
      runs: folders of runs or model directories by name.
      before: what some of them started from. Where that is a model directory of the
        same name with a log, its rows come first, and "part" counts the trainings.
    """
    rows = []
    for name, run in runs.items():
        start = (before or {}).get(name)
        earlier = _rows(name, start) if start and pathlib.Path(start).is_dir() else []
        part = 1 + max((row.get("part", 0) for row in earlier), default=-1)
        rows += [{"part": 0, **row} for row in earlier]
        rows += [{**row, "part": part} if part else row for row in _rows(name, run)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _rows(name: str, run: str | os.PathLike) -> list[dict[str, Any]]:
    """The metrics of a run, or those of that name in a model directory."""
    path = pathlib.Path(run) / "metrics.jsonl"
    if not path.is_file():  # a model directory
        path = path.with_name("training_log.jsonl")
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            row = {"run": name, **json.loads(line)}
        except ValueError:  # torn by the end of a run
            continue
        if row["run"] == name:
            rows.append(row)
    return rows
