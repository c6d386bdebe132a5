"""Configs are found by name, in a checkout and where only the package is there."""

import pathlib
import re
import shutil
import tomllib

import pytest

from gptface_jax.cli.main import main
from gptface_jax.core import config_names
from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import registry


def test_a_name_a_path_and_a_bare_name():
    path, arg = config_names.find("vqgan/faces64:tiny")
    assert path == config_names.root() / "configs/vqgan/faces64.py" and arg == "tiny"
    assert config_names.find("configs/vqgan/faces64.py:tiny")[1] == "tiny"
    # Four folders have one of this name; the one meant is GPTFace's.
    assert config_names.find("faces64")[0].parent.name == "gptface"
    assert config_names.find("taming_f16")[0].parent.name == "vqgan"
    assert load_config("faces64:tiny").to_json() == (
        load_config("configs/gptface/faces64.py:tiny").to_json()
    )


@pytest.mark.parametrize(
    "spec,said",
    [
        ("gptface/face64", "did you mean 'gptface/faces64'"),
        ("configs/vqgan/nothing.py:tiny", "gptface configs"),
        ("/nowhere/faces64.py", "'/nowhere/faces64.py' does not exist"),
        ("stage3_rafdb", "does not exist"),
    ],
)
def test_what_is_not_there(spec, said):
    with pytest.raises(UserError, match=said):
        config_names.find(spec)


def test_where_only_the_package_is(tmp_path, monkeypatch):
    """A path of the docs means the config that was shipped, outside a checkout too."""
    root = config_names.root()
    shipped = tmp_path / "shipped"
    shutil.copytree(root / "configs", shipped / "configs")
    monkeypatch.setattr(config_names, "ROOTS", (shipped,))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    path, _ = config_names.find("configs/vqgan/faces64.py:tiny")
    assert path == shipped / "configs/vqgan/faces64.py"
    assert load_config("configs/vqgan/faces64.py:tiny").system == "vqgan"
    monkeypatch.setattr(config_names, "ROOTS", (tmp_path,))
    with pytest.raises(UserError, match="did not come with this installation"):
        config_names.find("faces64")


def test_the_verb_lists_and_copies(tmp_path, gptface_command, capsys):
    assert gptface_command("configs", "talk2face/") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "talk2face/faces64",
        "talk2face/mini",
        "talk2face/seq2seq_base",
    ]
    assert gptface_command("configs", "--copy", tmp_path / "mine") == 0
    ours = pathlib.Path("configs")
    for path in ours.rglob("*.py"):
        copied = tmp_path / "mine/configs" / path.relative_to(ours)
        assert copied.read_bytes() == path.read_bytes()
    assert (tmp_path / "mine/launch/sweep.py").is_file()
    assert gptface_command("configs", "--copy", tmp_path / "mine") == 2
    assert "exists" in capsys.readouterr().err
    assert gptface_command("configs", "nonsense") == 2


def test_pages_are_named_where_a_wheel_has_them(tmp_path, monkeypatch, capsys):
    text = "as (docs/data.md) says, or docs/none.md"
    assert config_names.with_pages(text) == text  # in a checkout
    monkeypatch.setattr(config_names, "ROOTS", (tmp_path, tmp_path))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/data.md").touch()
    there = f"as ({tmp_path}/docs/data.md) says, or docs/none.md"
    assert config_names.with_pages(text) == there
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    assert f"{tmp_path}/docs/data.md" in capsys.readouterr().out


def test_a_wheel_has_the_pages_that_messages_name():
    wheel = tomllib.loads(pathlib.Path("pyproject.toml").read_text())
    shipped = wheel["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    rows = {registry.row(name).guide for name in registry.SYSTEMS} - {""}
    helps = "".join(
        p.read_text() for p in pathlib.Path("gptface_jax/cli").rglob("*.py")
    )
    for page in rows | set(re.findall(r"docs/\w+\.md", helps)):
        assert shipped[page] == f"gptface_jax/shipped/{page}"
