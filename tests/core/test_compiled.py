"""Compiled programs are kept, and a user's own settings count."""

import gc
import os
import subprocess
import sys

import pytest

from gptface_jax.core import compiled

FOLDER, SIZE, SECONDS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_COMPILATION_CACHE_MAX_SIZE",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


def test_the_environment_of_the_command_line(monkeypatch, tmp_path):
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", env)
    cache = tmp_path / "gptface_jax"
    cache.mkdir()
    (cache / "whole-cache").touch()
    (cache / "whole-atime").write_bytes(b"12345678")
    (cache / "killed-cache").touch()
    compiled.keep_in_environment()
    assert [env[n] for n in (FOLDER, SIZE, SECONDS)] == [
        str(cache), str(4 * 2**30), "0.0"
    ]  # fmt: skip
    assert (cache / "whole-atime").read_bytes() == b"12345678"
    assert (cache / "killed-atime").read_bytes() == bytes(8)
    env.clear()
    env[FOLDER] = "mine"  # which may grow as it likes
    compiled.keep_in_environment()
    assert env == {FOLDER: "mine"}


SCRIPT = """
import sys
import gptface_jax
assert "jax" not in sys.modules
import jax, jax.numpy as jnp
jax.jit(lambda x: x + 1)(1)  # JAX has decided that it keeps nothing
from gptface_jax.core import compiled
{own}
compiled.keep()
jax.jit(lambda x: jnp.sin(x) * 3)(jnp.arange(7.0)).block_until_ready()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize(
    "own, env, kept",
    [
        ("", {}, "gptface_jax"),
        ("jax.config.update('jax_compilation_cache_dir', {own!r})", {}, "own"),
        ("", {FOLDER: ""}, None),
        ("jax.config.update('jax_enable_compilation_cache', False)", {}, None),
    ],
)
@pytest.mark.slow
def test_a_process_that_uses_jax_already(tmp_path, own, env, kept):
    given = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    given |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu", **env}
    script = SCRIPT.format(own=own.format(own=str(tmp_path / "own")))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = {p.parent.name for p in tmp_path.glob("*/*-cache")}
    # A user's own folder keeps JAX's least time of compilation: a second.
    assert written == ({kept} if kept == "gptface_jax" else set())
    if kept:
        assert done.stdout.strip() == str(tmp_path / kept)


def test_the_collector_rests_while_networks_are_traced():
    assert gc.isenabled()
    with pytest.raises(KeyError), compiled.tracing():
        assert not gc.isenabled()
        with compiled.tracing():  # or in another thread
            pass
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()  # as a user may wish
    try:
        with compiled.tracing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
