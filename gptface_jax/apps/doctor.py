"""What this installation has, what it lacks, and what to do about it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

from gptface_jax import __version__
from gptface_jax.core import allocator, compiled, config_names, extras
from gptface_jax.core.errors import UserError
from gptface_jax.pipelines import networks

PACKAGE = "gptface-jax"
# What each extra is for.
EXTRAS = {
    "cuda": "JAX on NVIDIA GPUs",
    "tpu": "JAX on TPUs, and compiling for them without one",
    "tfds-build": "building TensorFlow Datasets",
    "log": "TensorBoard files of training runs",
    "wandb": "training runs at Weights & Biases",
    "bench": "benchmarks beside PyTorch",
    "plot": "curves of training runs",
    "export": "edits as StableHLO programs",
    "features": "distances in the features of EfficientNet-lite0",
    "ages": "pseudo labels of age",
    "eval": "caption metrics",
    "clip": "ranking drawn faces by a CLIP",
    "heif": "HEIC photos",
    "pipeline": "the raw web to training shards, by Apache Beam",
    "demo": "the page of `gptface serve`",
    "fast": "an allocator for training on CPUs",
    "launch": "sweeps, here and on SLURM",
}
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
      section: heading it stands under.
      name: what was looked at.
      value: what was found.
      advice: what to do; "" where nothing need be done.
      broken: the project does not work like this.
    """

    section: str
    name: str
    value: str
    advice: str = ""
    broken: bool = False


def examine() -> list[Finding]:
    """Findings about versions, devices, caches, extras and bundled parts, in order."""
    return [
        *_versions(),
        *_machine(),
        *_devices(),
        *_caches(),
        *_parts(),
        *_extras(),
    ]


def report(findings: list[Finding]) -> str:
    """The findings as text, under headings, and at the end all that there is to do."""
    lines, section = [], ""
    width = max(len(f.name) for f in findings)
    for found in findings:
        if found.section != section:
            section = found.section
            lines += ["", section]
        mark = "!" if found.broken else " "
        lines.append(f" {mark} {found.name:<{width}}  {found.value}")
    advice = dict.fromkeys(f.advice for f in findings if f.advice)
    lines += ["", "to do" if advice else "nothing to do"]
    lines += [f"  - {text}" for text in advice]
    return "\n".join(lines[1:])


def _requirements(extra: str = "") -> list[Requirement]:
    """Requirements of the package or of one of its extras on this machine."""
    found = map(Requirement, importlib.metadata.requires(PACKAGE) or ())
    chosen = []
    for need in found:
        alone = need.marker is None or need.marker.evaluate({"extra": ""})
        if alone if not extra else need.marker and not alone:
            if not extra or need.marker.evaluate({"extra": extra}):
                chosen.append(need)
    return chosen


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    section = "versions"
    yield Finding(section, "gptface-jax", __version__)
    yield Finding(section, "python", platform.python_version())
    try:
        needs = _requirements()
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            section,
            "requirements",
            "not known: the package runs without being installed",
            "install it (pip install -e . in a checkout), so that versions are checked",
        )
        return
    for need in needs:
        version = _version(need.name)
        if version is None:
            advice = extras.install_package(f"{need.name}{need.specifier}")
            yield Finding(section, need.name, "missing", advice, broken=True)
        elif not need.specifier.contains(version, prereleases=True):
            yield Finding(
                section,
                need.name,
                f"{version}, not {need.specifier}",
                extras.install_package(f"{need.name}{need.specifier}")
                + f": {version} was not tried",
            )
        else:
            yield Finding(section, need.name, version)


def _machine() -> Iterator[Finding]:
    section = "machine"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    yield Finding(section, "cores", str(cores or os.cpu_count()))
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield Finding(section, "memory", f"{memory / _GIB:.0f} GiB")
    if sys.platform == "linux" and not allocator.has_accelerator():
        library = allocator.find()
        advice = "" if library else (
            "training on CPUs is up to twice as fast under another allocator: "
            f"{extras.install('fast')}, or apt-get install libjemalloc2"
        )  # fmt: skip
        yield Finding(section, "allocator", library or "the system's", advice)


def _devices() -> Iterator[Finding]:
    section = "devices"
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        advice = f"JAX cannot start ({str(error).splitlines()[0]}); see the JAX docs"
        yield Finding(section, "JAX", "none", advice, broken=True)
        return
    backend = devices[0].platform
    for device in devices:
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        memory = f", {limit / _GIB:.0f} GiB" if limit else ""
        yield Finding(
            section, f"{backend}:{device.id}", f"{device.device_kind}{memory}"
        )
    if backend == "cpu" and os.environ.get("JAX_PLATFORMS", "cpu") in ("", "cpu"):
        if shutil.which("nvidia-smi") and pathlib.Path("/dev/nvidia0").exists():
            yield Finding(
                section,
                "NVIDIA GPU",
                "there is one, and JAX does not use it",
                f"{extras.install('cuda')}, and unset JAX_PLATFORMS",
            )
        if any(pathlib.Path("/dev").glob("accel*")):
            yield Finding(
                section,
                "TPU",
                "there is one, and JAX does not use it",
                f"{extras.install('tpu')}, and unset JAX_PLATFORMS",
            )


def _caches() -> Iterator[Finding]:
    section = "caches"
    compiled.keep_in_environment()
    folder = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"] or os.devnull)
    if folder == pathlib.Path(os.devnull):
        yield Finding(
            section,
            "compiled programs",
            "none (JAX_COMPILATION_CACHE_DIR is empty)",
            "unset JAX_COMPILATION_CACHE_DIR, so that programs are compiled once only",
        )
    else:
        files = [f for f in folder.rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files)
        place = next(p for p in (folder, *folder.parents) if p.exists())
        advice = "" if os.access(place, os.W_OK) else (
            f"'{place}' cannot be written; set JAX_COMPILATION_CACHE_DIR to a folder "
            "that can"
        )  # fmt: skip
        value = f"{folder}, {len(files)} files, {size / 2**20:.0f} MiB"
        yield Finding(section, "compiled programs", value, advice)
    free = shutil.disk_usage(pathlib.Path.cwd()).free
    advice = "" if free > _GIB else "less than 1 GiB is left on the disk of this folder"
    yield Finding(section, "free disk here", f"{free / _GIB:.0f} GiB", advice)


def _parts() -> Iterator[Finding]:
    section = "bundled"
    models = networks.bundled()
    advice = "" if models else "the bundled models are missing; install from a wheel"
    value = ", ".join(models) or "none"
    yield Finding(section, "models", value, advice, broken=not models)
    finder = networks.BUNDLED / "face_finder" / "blazeface.safetensors"
    there = finder.is_file()
    value = "there" if there else "missing"
    advice = "" if there else "the face finder is missing; install from a wheel"
    yield Finding(section, "face finder", value, advice, broken=not there)
    try:
        names = config_names.names()
        value = f"{len(names)} in {config_names.root()} (`gptface configs`)"
        yield Finding(section, "configs", value)
    except UserError as error:
        yield Finding(section, "configs", "missing", str(error))


def _extras() -> Iterator[Finding]:
    for name, purpose in EXTRAS.items():
        try:
            needs = _requirements(name)
        except importlib.metadata.PackageNotFoundError:
            return
        missing = [n.name for n in needs if _version(n.name) is None]
        if name == "cuda":  # of the extra `cuda13` of JAX
            missing = [] if _version("jax-cuda13-plugin") else ["jax-cuda13-plugin"]
        if name == "tpu":
            missing = [] if _version("libtpu") else ["libtpu"]
        yield Finding("extras", f"{name} ({purpose})", "no" if missing else "yes")
    yield Finding("extras", "to add one", extras.install("NAME"))
