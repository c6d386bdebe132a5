"""What the documents show, where nothing lies beside the checkout."""

import pytest

from gptface_jax.cli.main import main
from gptface_jax.core.config import load_config, override
from gptface_jax.core.errors import UserError
from gptface_jax.data import sources
from gptface_jax.experiments import training

SET = "or set --config.data.{}=\"{{'kind': '{}', "


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vqgan/faces64.py", SET.format("train", "folder")),
        ("vqgan/faces128.py:pixels", "'count': 4000, 'size': 128}\" for drawn faces"),
        ("judge/faces64.py:features", SET.format("train", "folder")),
        ("judge/faces64.py:lfw_all", SET.format("train", "folder")),
        ("judge/faces64.py:masks", SET.format("train", "folder")),
        ("gptface/faces64.py", SET.format("train", "tokens")),
        ("gptface/pretrain_base.py", SET.format("train", "tokens")),
        ("vqgan/faces64.py:gan", "objective.perceptual.path: .*judge/faces64.py:feat"),
    ],
)
def test_a_key_that_nobody_typed_is_named(root, tmp_path, monkeypatch, name, said):
    config = load_config(str(root / "configs" / name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=said.replace("{", r"\{")) as caught:
        training.build(config, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_the_value_that_is_named_can_be_set(root, tmp_path, monkeypatch):
    config = load_config(str(root / "configs/judge/faces64.py:features"))
    config.data.eval_records = 4
    monkeypatch.chdir(tmp_path)
    for key in ("data.train", "data.eval"):
        with pytest.raises(UserError, match=f"^{key}: ") as caught:
            training.build(config, tmp_path / "run")
        *_, drawn = str(caught.value).split("--config.")
        override(config, [drawn.partition('" for drawn faces')[0].replace('="', "=")])
    assert training.build(config, tmp_path / "run").system.name == "judge"


@pytest.mark.slow
def test_start_weights_that_are_not_there(tmp_path, monkeypatch):
    config = load_config("configs/vqgan/faces64.py:tiny_decoder")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="^init_from: .*set --config.init_from"):
        training.train(config, tmp_path / "run", progress=False)


@pytest.mark.slow
def test_the_tiny_way_from_photos_to_an_edit(tiny, tmp_path, capsys):
    """The four commands of the guide; the tokenizer is that of the other tests."""
    tokens, run = tmp_path / "tokens", tmp_path / "gptface"
    command = "tokenize --quiet --images synthetic --limit 8 --data size=32 --tokenizer"
    assert main([*command.split(), str(tiny / "vqgan"), "--out", str(tokens)]) == 0
    spec = f"{{'kind': 'tokens', 'path': '{tokens}'}}"
    train = ["train", "--quiet", "--config", "configs/gptface/faces64.py:tiny"]
    train += ["--workdir", str(run), f"--config.data.train={spec}"]
    assert main(train) == 2
    said = capsys.readouterr().err
    assert "data.eval is no token cache" in said and "set --config.data.eval=" in said
    assert main([*train, f"--config.data.eval={spec}"]) == 0
    photo = tmp_path / "photo.png"
    face = sources.open_source({"kind": "synthetic", "count": 1, "size": 40})[0]
    from PIL import Image

    Image.fromarray(face.image).save(photo)
    edit = f"edit --model {run} --tokenizer {tiny / 'vqgan'} --image {photo} --region"
    edit += f" mouth --samples 1 --out {tmp_path / 'edited.png'} --text"
    assert main([*edit.split(), "a smiling woman"]) == 0
    assert (tmp_path / "edited.png").is_file()
