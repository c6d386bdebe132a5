"""`gptface import --format tencent`: a Talk2Face of TencentPretrain to ask."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gptface_jax.cli.main import main
from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.data import label_sets
from gptface_jax.data.tasks import vocabulary_texts
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import opening, talk2face_run
from gptface_jax.interop import directory, state_dict, taming_config, tencent
from gptface_jax.nn.prefix_lm import PrefixLM
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig
from gptface_jax.ops import pictures
from gptface_jax.pipelines import answers
from gptface_jax.pipelines.sequence_model import SequenceModel

PIXELS = VQGANConfig(
    resolution=16, channels=8, channel_multipliers=(1, 1), num_res_blocks=1,
    attn_resolutions=(), z_channels=4, embed_dim=4, codebook_size=16, groups=4,
)  # fmt: skip


def run(*arguments):
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with talk2face.bin, talk2face.json, vocab.txt and a VQGAN."""
    folder = tmp_path_factory.mktemp("released")
    paper = {name: label_sets.TABLE[name] for name in label_sets.PAPER}
    text = TextTokenizer.train(20 * vocabulary_texts(paper), 500)
    (folder / "vocab.txt").write_text(text.vocab_text())
    options = {
        "hidden_size": 8, "heads_num": 2, "layers_num": 1, "feedforward_size": 12,
        "vocab_size": text.size + 16, "codebook_size": 16, "max_seq_length": 160,
        "grid": [8, 8],
    }  # fmt: skip
    (folder / "talk2face.json").write_text(json.dumps(options))
    config = tencent.read_config(options)
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = PrefixLM(config).init(jax.random.key(0), tokens, method="init_all")
    tencent.save(folder / "talk2face.bin", config, nn.meta.unbox(params)["params"])
    shapes = opening.expected_shapes("vqgan", PIXELS)
    rng = np.random.default_rng(0)
    vqgan = jax.tree.map(
        lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes
    )
    known = {"vqgan": dataclasses.asdict(PIXELS)}
    directory.write(folder / "vqgan", known, {"vqgan": vqgan}, {}, "float32")
    return folder


def command(files, out, **changes):
    given = {
        "config": files / "talk2face.json", "tokenizer": files / "vqgan",
        "vocab": files / "vocab.txt", "out": out, **changes,
    }  # fmt: skip
    flags = [x for k, v in given.items() if v for x in (f"--{k.replace('_', '-')}", v)]
    return "import", "--format", "tencent", files / "talk2face.bin", *flags


@pytest.mark.slow
def test_it_is_asked_as_any_other(files, tmp_path, capsys):
    assert run(*command(files, tmp_path / "model")) == 0
    printed = capsys.readouterr().out
    assert "matched: 22 weights, 0.01 M parameters" in printed
    assert "pixel_map: double" in printed
    model = talk2face_run.open_model(SequenceModel, tmp_path / "model")
    assert model.vqgan.config.pixel_map == "double"
    image = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    question = answers.found_question(model, "cacd age")
    (answer,) = answers.ask(model, model.image_ids(image), question)
    assert 0 <= answer.value < 120
    # Every weight, and back to their file.
    config, params = tencent.load(files / "talk2face.bin", files / "talk2face.json")
    for name, value in trees.flatten(params).items():
        np.testing.assert_array_equal(trees.flatten(model.network.params)[name], value)
    tencent.save(tmp_path / "back.bin", model.network.config, model.network.params)
    theirs, ours = (
        state_dict.read(p) for p in (files / "talk2face.bin", tmp_path / "back.bin")
    )
    assert set(theirs) == set(ours)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, name)


def test_it_goes_back_to_where_it_came_from(files, tmp_path, capsys):
    """What is exported is imported again by the command that the docs give."""
    assert run(*command(files, tmp_path / "model")) == 0
    out = tmp_path / "back.bin"
    back = ("export", "--format", "tencent", "--run", tmp_path / "model", "--out", out)
    assert run(*back) == 0
    assert "talk2face 0.01 M parameters" in capsys.readouterr().out
    changes = {"config": tmp_path / "back.json", "vocab": tmp_path / "back.vocab.txt"}
    flags = [str(x) for x in command(files, tmp_path / "again", **changes)]
    flags[flags.index(str(files / "talk2face.bin"))] = str(out)
    assert run(*flags) == 0
    first, again = (
        opening.open_network(tmp_path / name, "talk2face")
        for name in ("model", "again")
    )
    assert first.config == again.config and first.digest == again.digest
    theirs, ours = state_dict.read(files / "talk2face.bin"), state_dict.read(out)
    assert all((ours[name] == value).all() for name, value in theirs.items())
    capsys.readouterr()
    for more, message in (
        ((), "already exists; choose another name"),
        (("--dtype", "float32"), "--dtype does not go with --format tencent"),
    ):
        assert run(*back, *more) == 2
        assert message in capsys.readouterr().err
    assert run("export", "--format", "tencent", "--out", tmp_path / "x.bin") == 2
    assert "--run is missing" in capsys.readouterr().err
    assert run(*back[:-1], tmp_path / "x.doc") == 2


def test_pixels_by_hand(files, tmp_path):
    image = np.float32([[[[-1, 0, 1]]]])
    double = pictures.mapped(image, "double")
    np.testing.assert_allclose(double, [[[[-3, -1, 1]]]])
    # (0 - 0.4815) / 0.2686 and so on, times 2 less 1
    clip = pictures.mapped(image, "clip_then_map")
    np.testing.assert_allclose(clip[0, 0, 0], [-4.58451, -0.67721, 3.29181], atol=1e-4)
    pixels = np.random.default_rng(1).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    run(*command(files, tmp_path / "double"))
    run(*command(files, tmp_path / "single", pixel_map="single"))
    twice, once = (
        opening.open_network(tmp_path / name, "vqgan") for name in ("double", "single")
    )
    codes = twice.module.apply({"params": twice.params}, pixels, method="encode")
    again = VQGAN(PIXELS).apply(
        {"params": once.params}, 2 * pixels - 1, method="encode"
    )
    np.testing.assert_array_equal(codes, again)
    assert twice.codes_digest != once.codes_digest
    assert once.config == PIXELS


def test_the_frame_of_its_training_pictures(files, tmp_path):
    """Without one faces are not looked for; no checkpoint says it."""
    frame = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
    (tmp_path / "frame.json").write_text(json.dumps({"frame": frame}))
    given = {"framed": {"frame": tmp_path / "frame.json"}, "plain": {}}
    for name, changes in given.items():
        assert run(*command(files, tmp_path / name, **changes)) == 0
    framed, plain = (
        talk2face_run.open_model(SequenceModel, tmp_path / name) for name in given
    )
    np.testing.assert_allclose(framed.frame, frame)
    assert plain.frame is None and plain.digest == framed.digest


def failing(capsys, *arguments) -> str:
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "Traceback" not in error
    return error


def test_bad_imports(files, tmp_path, capsys):
    out = tmp_path / "model"
    said = failing(capsys, *command(files, out, vocab=None))
    assert "--vocab is missing" in said
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    said = failing(capsys, *command(files, out, vocab=tmp_path / "vocab.txt"))
    assert "the transformer's words: " in said and "vocab.txt': 6" in said
    assert "codes: 16, those of 'demo64': 1024" in failing(
        capsys, *command(files, out, tokenizer="demo64")
    )
    options = json.loads((files / "talk2face.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(options | {"layers_num": 2}))
    said = failing(capsys, *command(files, out, config=tmp_path / "x.json"))
    assert "encoder.transformer.1" in said
    said = failing(
        capsys, "import", "--format", "taming", "x.ckpt", "--config", "x.yaml",
        "--pixel-map", "double", "--out", out,
    )  # fmt: skip
    assert "--pixel-map is for --format tencent" in said
    assert "'x.json' holds no frame; make it by" in failing(
        capsys, *command(files, out, frame="x.json")
    )
    assert not out.exists()
    with pytest.raises(UserError, match="pixel_map 'double'"):
        taming_config.check(VQGANConfig(pixel_map="double"))
    with pytest.raises(ValueError, match="pixel_map 'triple' is unknown"):
        VQGANConfig(pixel_map="triple")
