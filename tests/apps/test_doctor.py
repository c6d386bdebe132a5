"""`gptface doctor`: what is there, what is not, and what to do."""

import importlib.metadata
import json
import tomllib

import pytest

from gptface_jax.apps import doctor
from gptface_jax.core import extras


def test_every_extra_says_what_it_is_for():
    with open("pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    assert [*doctor.EXTRAS] == [*project["optional-dependencies"]]


def test_a_sound_installation(gptface_command, capsys, tmp_path):
    out = tmp_path / "report.json"
    assert gptface_command("doctor", "--json", out) == 0
    said = capsys.readouterr().out
    found = {row["name"]: row for row in json.loads(out.read_text())}
    assert found["jax"]["value"] == importlib.metadata.version("jax")
    assert found["models"]["value"].split(", ")[0] == "demo"
    assert any(row["section"] == "devices" for row in found.values())
    assert not any(row["broken"] for row in found.values())
    for section in ("versions", "machine", "devices", "caches", "bundled", "extras"):
        assert f"\n{section}\n" in f"\n{said}"


def test_what_is_missing_or_of_another_version(monkeypatch, gptface_command, capsys):
    real = doctor._version
    monkeypatch.setattr(extras, "_made_by_uv", lambda: False)
    versions = {"flax": None, "numpy": "1.26.4"}
    monkeypatch.setattr(doctor, "_version", lambda n: versions.get(n, real(n)))
    assert gptface_command("doctor") == 1
    printed = capsys.readouterr()
    assert " ! flax" in printed.out
    assert '- pip install "flax' in printed.out
    assert "1.26.4, not" in printed.out and "1.26.4 was not tried" in printed.out
    assert "flax: see above" in printed.err


def test_a_cache_that_is_off_and_one_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    (first, *_) = doctor._caches()
    assert "unset JAX_COMPILATION_CACHE_DIR" in first.advice
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/nowhere/cache")
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    (first, *_) = doctor._caches()
    assert "'/' cannot be written" in first.advice


@pytest.mark.parametrize("memory", [None, 8 * 2**30])
def test_devices_by_name_and_memory(monkeypatch, memory):
    class Device:
        id, platform, device_kind = 0, "tpu", "TPU v5e"

        def memory_stats(self):
            return {"bytes_limit": memory} if memory else None

    import jax

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    (found,) = doctor._devices()
    assert found.name == "tpu:0"
    assert found.value == "TPU v5e" + (", 8 GiB" if memory else "")
