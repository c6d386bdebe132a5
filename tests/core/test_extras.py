"""How what is missing is installed, in each kind of installation."""

import pathlib

import pytest

from gptface_jax.core import extras


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A folder that stands for the checkout, and one for the environment."""
    monkeypatch.setattr(extras, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(extras.sys, "prefix", str(tmp_path))
    return tmp_path


def test_of_a_wheel(checkout):
    assert extras.install("demo") == "pip install 'gptface-jax[demo]'"
    assert extras.install_package("jax>=1") == 'pip install "jax>=1"'


@pytest.mark.parametrize("own", [False, True])
def test_of_a_checkout_whose_environment_uv_made(checkout, own):
    (checkout / "pyproject.toml").touch()
    (checkout / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9.1\n")
    uv = pathlib.Path("uv")
    if own:
        uv = checkout / ".uv" / "bin" / "uv"
        uv.parent.mkdir(parents=True)
        uv.touch()
    sync = f"{uv} sync --inexact --project {checkout}"
    assert extras.install("demo") == f"{sync} --extra demo"
    assert extras.install_package("jax>=1") == sync


def test_of_a_checkout_with_pip(checkout):
    (checkout / "pyproject.toml").touch()
    (checkout / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert extras.install("demo") == f"pip install -e '{checkout}[demo]'"
