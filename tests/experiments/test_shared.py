"""One set of weights: GPTFace is what it was, and a run is opened as either system."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import gptface_jax
from gptface_jax.apps import api, exporting, program, sequence_api, verbs
from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping, load_config, to_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import (
    gptface_run,
    opening,
    registry,
    shared,
    starting,
    talk2face,
    talk2face_run,
    training,
)
from gptface_jax.nn.prefix_lm import position_rows
from gptface_jax.pipelines import answers, networks
from gptface_jax.pipelines.editing_model import EditingModel
from gptface_jax.pipelines.sequence_model import SequenceModel, generate_options
from gptface_jax.systems.gptface.model import GPTFace, assemble
from gptface_jax.train import settings

CONFIG = "configs/gptface/shared.py:tiny"


def model_config(**changes) -> shared.SharedConfig:
    values = to_mapping(tiny.config(**changes)) | {"segments": 3, "length": 20}
    return from_mapping(shared.SharedConfig, values | {"max_positions": 32})


def test_sequences_of_gptface_are_bit_for_bit_what_they_were():
    module, params = tiny.model()
    both = GPTFace(model_config())
    grown = {**params, "tokens": {**params["tokens"], "segment": jnp.zeros((3, 16))}}
    position = jnp.zeros((32, 16)).at[:20].set(params["tokens"]["position"])
    grown["tokens"]["position"] = position
    tokens, match = tiny.tokens(), jnp.array([0, 1, 2, 1])

    def outputs(module, params):
        hidden = module.apply(params, tokens, match)
        heads = ("itm_logits", "token_logits")
        return hidden, *(module.apply(params, hidden, method=m) for m in heads)

    run = jax.jit(outputs, static_argnums=0)
    before, after = run(module, {"params": params}), run(both, {"params": grown})
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_image_tokens_have_the_rows_that_gptface_gave_them():
    config = model_config()
    rows = position_rows(tiny.tokens(), config.sequences)
    np.testing.assert_array_equal(rows, np.tile(np.arange(19), (4, 1)))
    # Parameters are GPTFace's, and those of the segments.
    paths = [
        set(trees.flatten(opening.expected_shapes(name, c)))
        for name, c in (("gptface", tiny.config()), ("shared", config))
    ]
    assert paths[1] - paths[0] == {"tokens/segment"} and paths[0] < paths[1]
    sequences = trees.flatten(opening.expected_shapes("talk2face", config.sequences))
    assert set(sequences) < paths[1]


@pytest.mark.parametrize(
    ("tokens", "weights", "expected"),
    [
        # 30 tokens of pairs, 10 of sequences
        ((20, 10, 4, 6), (1.0, 1.0), (1.5, 0.5)),
        ((20, 10, 4, 6), (1.0, 3.0), (1.0, 1.0)),
        # nothing of pairs is scored
        ((0, 0, 4, 6), (1.0, 1.0), (1.0, 1.0)),
    ],
)
def test_scored_tokens_count_the_same(tokens, weights, expected):
    names = [
        f"{feed}/{side}_nll" for feed in shared.PARTS for side in ("image", "text")
    ]
    metrics = {n: (jnp.float32(7), jnp.float32(t)) for n, t in zip(names, tokens)}
    np.testing.assert_allclose(shared._shares(metrics, weights), expected)


def test_a_source_for_one_of_the_two_is_refused():
    config = load_config(CONFIG)
    config.data.train = {"pairs": config.data.train.to_dict()}
    with pytest.raises(UserError, match="data name pairs and not 'sequences'"):
        registry.make(config)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run on cached codes, from the weights of a GPTFace."""
    config = load_config(CONFIG)
    config.init_from = str(tiny / "gptface")
    config.model.layout.grid = (8, 8)
    spec = {"kind": "tokens", "path": str(tiny / "tokens")}
    config.data.train = config.data.eval = spec
    config.data.image_ids = "cache"
    config.total_steps, config.log_every, config.eval_every = 60, 20, 60
    config.checkpoint_every = 60
    config.batch_size = 8
    folder = tmp_path_factory.mktemp("shared")
    training.train(config, folder, progress=False)
    return folder


@pytest.mark.slow
def test_both_losses_fall(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    first, *_, last = [row for row in rows if "loss" in row]
    for feed in shared.PARTS:
        assert last[f"{feed}/image_nll"] < 0.97 * first[f"{feed}/image_nll"]
        assert last[f"{feed}/loss"] < 0.97 * first[f"{feed}/loss"]
    (held_out,) = [row for row in rows if "eval/pairs/loss" in row]
    assert {"eval/sequences/loss", "eval/itm_accuracy_40"} <= set(held_out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", [pytest.param("run", marks=pytest.mark.slow), "directory"]
)
def test_the_same_folder_edits_and_answers(run, form, tiny, tmp_path):
    path, tokenizer = run, tiny / "vqgan"
    if form == "directory":
        path = tmp_path / "model"
        exporting.export_run(
            run, path, tokenizer=tokenizer, decode={"k": 5, "density": 1.0},
            attributes=["Smiling"], synthesis={"temperature": 0.5},
        )  # fmt: skip
        tokenizer = None
        known = json.loads((path / "config.json").read_text())
        assert {*known["training"]} == {"shared", "vqgan"}
        assert (path / "tokenizer.json").is_file()
        assert "## Limits and bias" in (path / "README.md").read_text()
    both = gptface_jax.load(path, tokenizer=tokenizer)
    assert isinstance(both, api.Model)
    turned = gptface_jax.load(path, tokenizer=tokenizer, system="talk2face")
    assert isinstance(turned, sequence_api.Talk2Face) and isinstance(
        turned.edit.__self__, api.Model
    )
    photo = np.zeros((both.size, both.size, 3), np.uint8)
    asked = both.learnt.questions[0].name
    said = both.ask(photo, asked, align=False)
    assert said == turned.ask(photo, asked, align=False) and said.value is not None
    with pytest.raises(UserError, match="no 'perceive'"):
        _ = both.perceive
    editing = gptface_run.open_model(EditingModel, path, tokenizer, None)
    asking = talk2face_run.open_model(SequenceModel, path, tokenizer)
    image = np.zeros((1, asking.size, asking.size, 3), np.uint8)
    ids = asking.image_ids(image)
    question = asking.learnt.questions[0]
    (answer,) = answers.ask(asking, ids, question)
    assert answer.value is not None and 0 < answer.confidence <= 1
    prefix, _ = asking.text_prefix("to image", "a smiling woman")
    keys = jax.random.split(jax.random.key(0), (1, 1))
    drawn = asking.generate(prefix[None], generate_options({}), keys)
    assert asking.pictures(drawn.tokens[0]).shape == image.shape
    # The very same weights.
    own, other = editing.editor.gptface, asking.network
    assert own.digest == other.digest
    for name, value in trees.flatten(other.params).items():
        np.testing.assert_array_equal(value, trees.flatten(own.params)[name], name)
    assert "itm/kernel" in trees.flatten(own.params)
    assert editing.decode.cfg == 2.0  # as of a run that saw pictures without texts
    if form == "directory":
        assert asking.synthesis == {"temperature": 0.5, "modality": "image"}
        details = turned.synthesize("a woman").details
        assert details["decode"]["temperature"] == 0.5
        _check_exported_again(path, tmp_path / "again")
        assert (editing.decode.k, both.attributes) == (5, ("Smiling",))
        moved = both.on(jax.devices()[:1])
        assert moved.several and moved.ask(photo, asked, align=False) == said
        options = {"samples": 1, "platforms": ["cpu"]}
        program.write(path, tmp_path / "program", **options)
        alone = gptface_jax.load(tmp_path / "program")
        assert alone.decode == editing.decode and not alone.several


def _check_exported_again(path, out):
    """A model directory with an option changed is otherwise the same."""
    exporting.export_run(path, out, decode={"k": 3}, synthesis={"top_k": 9})
    before, after = (json.loads((p / "config.json").read_text()) for p in (path, out))
    assert after["decode"] == {**before["decode"], "k": 3}
    assert after["synthesis"] == {**before["synthesis"], "top_k": 9}
    for said in ("decode", "synthesis"):
        del before[said], after[said]
    assert before == after
    for name in ("README.md", "label_sets.json", "shared.safetensors", "vocab.txt"):
        assert (path / name).read_bytes() == (out / name).read_bytes()
    with pytest.raises(UserError, match="holds a VQGAN alone; give it as --tokenizer"):
        exporting.export_run("vqgan128", out.with_name("vqgan"))


def test_a_log_begins_with_that_of_the_training_before(tmp_path):
    def write(name, file, *rows):
        (tmp_path / name).mkdir()
        lines = [json.dumps(row) for row in rows]
        (tmp_path / name / file).write_text("\n".join([*lines, "{torn"]))
        return tmp_path / name

    first = write("first", "metrics.jsonl", {"step": 1}, {"step": 2})
    vqgan = write("vqgan", "metrics.jsonl", {"step": 9})
    log = exporting._log({"vqgan": vqgan, "shared": first}).decode()
    assert [json.loads(row) for row in log.splitlines()] == [
        {"run": "vqgan", "step": 9}, {"run": "shared", "step": 1},
        {"run": "shared", "step": 2},
    ]  # fmt: skip
    model = tmp_path / "model"
    model.mkdir()
    (model / "training_log.jsonl").write_text(log)
    second = write("second", "metrics.jsonl", {"step": 1})
    (model / "training_log.jsonl").write_bytes(
        exporting._log({"shared": second}, {"shared": model})
    )
    third = write("third", "metrics.jsonl", {"step": 7})
    log = exporting._log({"shared": third}, {"shared": model}).decode().splitlines()
    found = [(row["step"], row["part"]) for row in map(json.loads, log)]
    assert found == [(1, 0), (2, 0), (1, 1), (7, 2)]
    # A bundled name or a run is no model directory with a log.
    alone = exporting._log({"shared": third}, {"shared": "demo64"})
    assert alone == exporting._log({"shared": third})


def test_no_folder_of_the_machine_is_told():
    config = {"init_from": "/home/somebody/runs/first", "batch_size": 2}
    assert exporting._portable(config) == {"init_from": "first", "batch_size": 2}
    for start in ("demo64", "runs/first", ""):
        assert exporting._portable({"init_from": start}) == {"init_from": start}


def test_what_is_stored_does_not_round_its_products():
    config = model_config()
    layers = dataclasses.replace(config.transformer, matmul_dtype="bfloat16")
    rounded = dataclasses.replace(config, transformer=layers)
    stored = exporting._stored(rounded)
    assert from_mapping(shared.SharedConfig, stored) == config


def test_what_holds_a_system_as_a_part_is_found(monkeypatch):
    """By `init_from`, and by the hint that says which model does what."""
    held = {"a": ["vqgan", "shared"], "b": ["facegpt", "gptface"]}
    monkeypatch.setattr(opening, "networks_of", held.get)
    monkeypatch.setattr(opening, "open_network", lambda path, name: name)
    assert opening.systems_of("a") == {"vqgan", "shared", "gptface", "talk2face"}
    found = {name: training.initial_network("a", name) for name in registry.SYSTEMS}
    same = {name: name for name in ("vqgan", "gptface", "shared", "judge")}
    assert found == {
        **same, "talk2face": "talk2face", "faceptor": "shared",
        "facegpt": "gptface", "chat": "gptface",
    }  # fmt: skip
    assert training.initial_network("b", "facegpt") == "gptface"
    monkeypatch.setattr(networks, "bundled", lambda: ["a"])
    assert "such as the bundled 'a'" in verbs._who_has_it(["talk2face"])
    assert "none is bundled" in verbs._who_has_it(["faceptor"])


def test_another_system_s_run_is_refused_still(tiny):
    with pytest.raises(
        UserError, match="is a run of system 'gptface', not of 'shared'"
    ):
        opening.open_network(tiny / "gptface", "shared")
    with pytest.raises(UserError, match="holds no network 'talk2face' with what"):
        opening.facades(tiny / "gptface", "talk2face")
    with pytest.raises(UserError, match="'gptfaze' is none.*did you mean 'gptface'"):
        opening.facades(tiny / "gptface", "gptfaze")


@pytest.mark.slow
def test_released_weights_grow_words_and_go_on_saying_the_same():
    """The bundled model, whose words cannot spell labels, in a larger vocabulary."""
    demo = opening.open_network("demo64", "gptface")
    known = starting.vocabulary_of("demo64")
    text = known.extended(["to attributes: age 77; smiling", "a woman"])
    # What it cannot spell, and what only letter by letter.
    assert text.vocab_text() == known.vocab_text() + "attributes\nage\n77\n;\n"
    assert (text.encode(["age 77; smiling"])[0] != text.unk_id).all()
    before = "a smiling woman with brown hair"
    np.testing.assert_array_equal(text.encode([before]), known.encode([before]))
    config = load_config("configs/gptface/shared.py")
    config.init_from = "demo64"
    config.model.vocab = dataclasses.asdict(text.joint_vocab(1024))
    experiment = types.SimpleNamespace(
        config=config,
        extra_files={"vocab.txt": text.vocab_text().encode()},
        system=registry.make(config),
    )
    params = starting.started(demo, experiment)
    wanted = opening.expected_shapes("shared", model_of(config))
    for name, shape in trees.flatten(wanted).items():
        if name == "tokens/segment":
            continue  # zeros, of the new run
        assert trees.flatten(params)[name].shape == shape.shape, name
    rows = params["tokens"]["position"][98:]
    assert 0.03 < rows.std() < 0.1  # as in a new run
    params["tokens"]["segment"] = np.zeros((3, 128), np.float32)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1024, (2, 64)).astype(np.int32)
    words = known.encode([before, "a man"], 32)
    results = []
    for module, own in (
        (demo.module, demo.params),
        (GPTFace(model_of(config)), params),
    ):
        tokens = assemble(codes, words, module.config)
        apply = jax.jit(module.apply, static_argnames="method")
        hidden = apply({"params": own}, tokens)
        image = apply({"params": own}, hidden, method="image_logits")
        bag = apply({"params": own}, codes, method="word_bag_logits")
        results.append((hidden, image, bag[:, : known.size]))
    for first, second in zip(*results):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_a_talk2face_begins_with_what_a_gptface_knows_of_faces():
    demo = opening.open_network("demo64", "gptface")
    config = load_config("configs/talk2face/faces64.py")
    config.init_from = "demo64"
    known = starting.vocabulary_of("demo64")
    config.model.vocab = dataclasses.asdict(known.joint_vocab(1024))
    experiment = types.SimpleNamespace(
        config=config,
        extra_files={"vocab.txt": known.vocab_text().encode()},
        system=registry.make(config),
    )
    params = trees.flatten(starting.started(demo, experiment))
    model = from_mapping(
        registry.row("talk2face").config, settings.plain(config)["model"]
    )
    wanted = trees.flatten(opening.expected_shapes("talk2face", model))
    # All but the rows of segments; no head for matching.
    assert set(wanted) - set(params) == {"tokens/segment"}
    assert set(params) < set(wanted)
    for name, value in trees.flatten(demo.params).items():
        if name.startswith("transformer"):
            np.testing.assert_array_equal(params[name], value)


def test_a_table_that_grows_by_face_tokens_changes_no_bit():
    """The bundled model as a FaceGPT begins with it, on its own ids."""
    demo = opening.open_network("demo64", "gptface")
    config = load_config("configs/facegpt/faces64.py")
    config.init_from = "demo64"
    known = starting.vocabulary_of("demo64")
    vocab = known.joint_vocab(1024, face_tokens=5)
    config.model.vocab = dataclasses.asdict(vocab)
    row = registry.row("facegpt")
    experiment = types.SimpleNamespace(
        config=config,
        extra_files={"vocab.txt": known.vocab_text().encode()},
        system=registry.make(config),
    )
    params = starting.started(demo, experiment)
    model = from_mapping(row.config, settings.plain(config)["model"])
    assert len(params["tokens"]["embedding"]) > len(demo.params["tokens"]["embedding"])
    rng = np.random.default_rng(0)
    codes = jnp.asarray(rng.integers(0, 1024, (2, 64)))
    words = jnp.asarray(known.encode(["a smiling man", "grey hair"], 32))
    results = []
    for module, own in ((demo.module, demo.params), (row.module(model), params)):
        apply = jax.jit(module.apply, static_argnames="method")
        tokens = assemble(codes, words, module.config)
        hidden = apply({"params": own}, tokens)
        image = apply({"params": own}, hidden, method="image_logits")
        results.append((hidden, image))
    for before, after in zip(*results):
        np.testing.assert_array_equal(before, after)


def model_of(config) -> shared.SharedConfig:
    return from_mapping(shared.SharedConfig, settings.plain(config)["model"])


def test_other_image_tokens_are_refused():
    demo = opening.open_network("demo64", "gptface")
    config = load_config("configs/gptface/shared.py")
    config.init_from, config.model.layout.grid = "demo64", (4, 4)
    config.model.max_positions = 400
    with pytest.raises(UserError, match=r"grid is \[8, 8\] there and \[4, 4\]"):
        starting.started(demo, types.SimpleNamespace(config=config))


def test_a_run_is_saved_with_the_length_that_was_asked_for(monkeypatch):
    """So that it goes on on a mesh that splits sequences in other parts."""
    monkeypatch.setattr(talk2face.sharding, "ways", lambda *_: 7)
    config = load_config(CONFIG)
    length = config.model.length
    found = talk2face.fitted(config)
    assert found["model"]["length"] == -(-length // 7) * 7 != length
    assert config.model.length == length
