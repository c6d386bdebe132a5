"""A program starts again under a better allocator: once, as it was, where it helps."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from gptface_jax.cli.main import main
from gptface_jax.core import allocator
from gptface_jax.core.errors import UserError

ELF = pathlib.Path("/proc/self/exe")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A made-up libjemalloc.so.2, the only one that is found."""
    path = tmp_path / "libjemalloc.so.2"
    path.write_bytes(ELF.read_bytes()[:64])
    monkeypatch.setattr(allocator, "_folders", lambda: iter([tmp_path]))
    return path


@pytest.fixture
def started(monkeypatch):
    """What `os.execve` is called with; a process that was called as a script."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(sys, "modules", {"__main__": pytest})
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "utf8", "gptface", "a b"])
    for name in (allocator.SWITCH, "LD_PRELOAD", "MALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return calls


def test_the_process_is_the_same_but_for_its_allocator(library, started, capsys):
    allocator.start_again("gptface train")
    ((python, arguments, environment),) = started
    assert python == sys.executable
    assert arguments == [sys.executable, "-X", "utf8", "gptface", "a b"]
    assert environment["LD_PRELOAD"] == str(library)
    # Memory is kept for longer than a step, but not for ever.
    assert "dirty_decay_ms:40000" in environment["MALLOC_CONF"]
    assert "oversize_threshold:0" in environment["MALLOC_CONF"]
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(library) in error
    assert error.startswith("gptface train: ") and "GPTFACE_ALLOCATOR=off" in error
    assert "LD_PRELOAD" not in os.environ


def test_only_once_and_children_get_the_old_environment(library, started, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/opt/theirs.so")
    allocator.start_again("x")
    (_, _, environment) = started.pop()
    assert environment["LD_PRELOAD"] == f"{library}:/opt/theirs.so"
    # A sandbox may take LD_PRELOAD away again: no loop.
    for preload in (environment["LD_PRELOAD"], None):
        monkeypatch.setattr(os, "environ", dict(environment))
        if preload is None:
            del os.environ["LD_PRELOAD"]
        allocator.start_again("x")
        assert not started
        assert os.environ["LD_PRELOAD"] == "/opt/theirs.so"
        assert not {"MALLOC_CONF", allocator._STARTED} & set(os.environ)
    # What another process was told says nothing of this one.
    told = json.loads(environment[allocator._STARTED])
    told[0] += 1
    monkeypatch.setenv(allocator._STARTED, json.dumps(told))
    allocator.start_again("x")
    assert len(started) == 1


@pytest.mark.parametrize(
    "name, value",
    [
        (allocator.SWITCH, "off"),
        ("LD_PRELOAD", "/usr/lib/libtcmalloc.so.4"),
        ("JAX_PLATFORMS", "cuda,cpu"),
        ("JAX_PLATFORMS", "tpu"),
    ],
)
def test_when_nothing_happens(library, started, monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    allocator.start_again("x")
    assert not started and not capsys.readouterr().err


def test_nothing_happens_where_none_is_found(tmp_path, library, started, monkeypatch):
    library.write_bytes(b"\x7fELF\x01 of 32 bits" + bytes(20))
    assert allocator.find() is None
    library.unlink()
    allocator.start_again("x")
    monkeypatch.setitem(sys.modules, "jax", None)  # too late
    library.write_bytes(ELF.read_bytes()[:64])
    allocator.start_again("x")
    assert not started


def test_the_best_one_is_taken_or_the_one_that_is_named(
    tmp_path, library, started, monkeypatch
):
    other = tmp_path / "libmimalloc.so.3"
    other.write_bytes(library.read_bytes())
    assert allocator.chosen() == str(library)
    assert allocator.chosen({"GPTFACE_ALLOCATOR": "mimalloc"}) == str(other)
    assert allocator.chosen({"GPTFACE_ALLOCATOR": str(other)}) == str(other)
    mine = allocator.settings(str(other), {"MIMALLOC_PURGE_DELAY": "10"})
    assert mine["LD_PRELOAD"] == str(other) and "MIMALLOC_PURGE_DELAY" not in mine
    for wrong in ("tcmalloc", str(tmp_path / "none.so")):
        with pytest.raises(UserError, match=f"is '{wrong}'.*jemalloc, tcmalloc, mimal"):
            allocator.chosen({"GPTFACE_ALLOCATOR": wrong})


def test_accelerators_are_known_without_jax(tmp_path, monkeypatch):
    assert not allocator.has_accelerator({"JAX_PLATFORMS": "cpu"})
    assert allocator.has_accelerator({"JAX_PLATFORMS": "cpu,tpu"})
    for name in ("jax_cuda13_plugin", "libtpu"):
        path = tmp_path / name
        (path / name).mkdir(parents=True)
        with monkeypatch.context() as context:
            context.syspath_prepend(path)
            assert allocator.has_accelerator({})
    (tmp_path / "own" / "jax_plugins" / "mine").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "own")
    assert allocator.has_accelerator({})


SCRIPT = """
import os, sys
from gptface_jax.core import allocator
first = "_GPTFACE_STARTED_AGAIN" not in os.environ
print("at", os.getpid(), first, flush=True)
allocator.start_again("script")
libraries = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
print(sys.argv[1:], sys.stdin.read(), os.environ.get("LD_PRELOAD"))
print([n for n in libraries if "malloc" in n])
sys.exit(7)
"""


@pytest.mark.skipif(allocator.find() is None, reason="this machine has no allocator")
def test_for_real(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k != allocator.SWITCH}
    environment |= {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, script, "a b", "--c"], input="piped", text=True,
        capture_output=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    first, again, said, loaded = done.stdout.splitlines()
    assert first.removesuffix("True") == again.removesuffix("False")  # one process
    assert said == "['a b', '--c'] piped None"
    assert os.path.realpath(allocator.find()) in loaded
    assert done.stderr.startswith("script: ") and done.stderr.count("\n") == 1


@pytest.mark.skipif(allocator.find() is None, reason="this machine has no allocator")
def test_the_command_line_starts_what_computes_long(tmp_path):
    """`train` says so once and then what is wrong."""
    environment = {k: v for k, v in os.environ.items() if k != allocator.SWITCH}
    environment |= {"JAX_PLATFORMS": "cpu"}

    def said(*arguments, **changes):
        command = [sys.executable, "-m", "gptface_jax.cli.main", *arguments]
        done = subprocess.run(
            command, text=True, capture_output=True, env=environment | changes
        )
        assert done.returncode == 2
        return done.stderr.splitlines()

    train = ("train", "--config", "none.py", "--workdir", str(tmp_path))
    told, error = said(*train)
    assert "malloc" in told and error.startswith("gptface train: config file 'none.py'")
    assert said(*train, GPTFACE_ALLOCATOR="off") == [error]
    (wrong,) = said(*train, GPTFACE_ALLOCATOR="none.so")
    assert wrong.startswith("gptface train: GPTFACE_ALLOCATOR is 'none.so'")


def test_quick_verbs_and_calls_from_python_do_not_start_again(monkeypatch):
    calls = []
    monkeypatch.setattr(allocator, "start_again", calls.append)
    train = ["train", "--config", "none.py", "--workdir", "none"]
    assert main(train) == 2 and not calls
    monkeypatch.setattr(sys, "argv", ["gptface", "describe", "--config", "none.py"])
    assert main() == 2 and not calls
    monkeypatch.setattr(sys, "argv", ["gptface", *train, "--help"])
    with pytest.raises(SystemExit):
        main()
    assert not calls
    monkeypatch.setattr(sys, "argv", ["gptface", *train])
    assert main() == 2 and calls == ["gptface train"]


def test_what_python_users_put_before_a_command(library):
    settings = allocator.settings(str(library), {})
    words = [f"{name}={value}" for name, value in settings.items()]
    assert all(" " not in word for word in words)
    done = subprocess.run(
        [sys.executable, "-m", "gptface_jax.core.allocator"], text=True,
        capture_output=True, env={**os.environ, allocator.SWITCH: "off"}, check=True,
    )  # fmt: skip
    assert done.stdout == ""
