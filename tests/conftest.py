"""Shared fixtures; the compilation cache makes the second run of the suite fast."""

from __future__ import annotations

import gc
import os
import pathlib
from importlib import metadata

import filelock
import hypothesis
import pytest

ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tiny models gain nothing from a second start.
os.environ.setdefault("GPTFACE_ALLOCATOR", "off")
# Some machines forbid to write it: every process then compiles its imports for seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tiny models take longer to compile than to run. JAX_DISABLE_MOST_OPTIMIZATIONS has no
# effect in JAX 0.10.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if metadata.version("jax").startswith("0.10."):
    QUICKLY += " --xla_cpu_use_fusion_emitters=false"
    QUICKLY += " --xla_cpu_parallel_codegen_split_count=1"  # workers fill the cores
os.environ.setdefault("XLA_FLAGS", QUICKLY)
# Where in the source an operation came from is read nowhere: a fourteenth of the time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Tracing makes many objects that stay: looking for garbage took a twelfth of the time.
gc.set_threshold(100_000, 50, 100)
# The same examples in every run; --hypothesis-profile=default looks for others.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


# What takes minutes starts first, so that no worker waits for another one at the end.
# The first makes what many others open; the next two have no use for it, so that the
# second worker does not wait for it.
LONGEST = (
    "test_configs",
    "test_multiprocess",
    "test_kills",
    "test_cli",
    "test_meshes",
    "test_api",
    "test_sweep",
    "test_gptface_objective",
    "test_gptface_decode",
    "test_vqgan_adversarial",
)


def pytest_collection_modifyitems(items):
    """Files in the order in which `--no-loadscope-reorder` hands them to workers."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_runtest_setup(item):
    """A test asked for by name is skipped where its GPU is missing, as others are."""
    if item.get_closest_marker("gpu"):
        import jax

        if jax.default_backend() != "gpu":
            pytest.skip(f"needs an NVIDIA GPU; here JAX has {jax.default_backend()}")


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Reference data that are not part of the project."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the reference data in {folder}")
    return folder


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    """Configs and documented commands are relative to the checkout."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def gptface_command():
    """Calls the command line in this process; returns the exit status."""
    from gptface_jax.cli.main import main

    return lambda *arguments: main([str(a) for a in arguments])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, gptface_command):
    """The whole way at tiny size, by the commands: runs, token cache, model."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _make_tiny(tmp_path_factory.mktemp("tiny"), gptface_command)
    folder = tmp_path_factory.getbasetemp().parent / "tiny"  # of all workers
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "model").exists():
            _make_tiny(folder, gptface_command)
    return folder


def _make_tiny(folder, gptface_command):
    here = os.getcwd()
    os.chdir(ROOT)
    steps = (
        ("train", "--quiet", "--config", "configs/vqgan/faces64.py:tiny",
         "--workdir", folder / "vqgan"),
        ("tokenize", "--quiet", "--images", "synthetic", "--limit", 24,
         "--tokenizer", folder / "vqgan", "--out", folder / "tokens"),
        ("train", "--quiet", "--config", "configs/gptface/faces64.py:tiny",
         "--workdir", folder / "gptface", "--config.data.image_ids=cache",
         f"--config.data.train={{'kind': 'tokens', 'path': '{folder}/tokens'}}",
         f"--config.data.eval={{'kind': 'tokens', 'path': '{folder}/tokens'}}"),
        ("export", "--gptface", folder / "gptface", "--tokenizer", folder / "vqgan",
         "--out", folder / "model", "--description", "A test.",
         "--decode", "cfg=1"),
    )  # fmt: skip
    try:
        for arguments in steps:
            assert gptface_command(*arguments) == 0, arguments
    finally:
        os.chdir(here)
    return folder


@pytest.fixture(scope="session")
def model(tiny):
    """The tiny model, loaded and compiled once a worker; nobody changes it."""
    import gptface_jax

    return gptface_jax.load(tiny / "model")


@pytest.fixture(scope="session")
def astronaut():
    """The public-domain photograph that comes with the package: uint8 [512,512,3], a
    face near (224, 125), about 100 pixels wide."""
    import numpy as np
    from PIL import Image

    path = ROOT / "gptface_jax" / "assets" / "astronaut.jpg"
    return np.asarray(Image.open(path).convert("RGB"))
