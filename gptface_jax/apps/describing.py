"""Parameter tables, and what a training step costs on given devices."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping, override
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import opening, registry
from gptface_jax.nn import platforms
from gptface_jax.nn.transformer import REMAT
from gptface_jax.train import program, settings, sharding
from gptface_jax.train.planning import collectives, cost, estimates, hardware

_LARGEST = 6  # collectives that are listed
_DEAREST = 12  # operations that are no products
_DEVICES = 8  # of a mesh that takes whatever is there


def table(shapes: Any, depth: int = 2) -> str:
    """Names, shapes and counts, summed below `depth` levels (0 = never).

    Args:
      shapes: tree of arrays or shape structs.
      depth: levels of the names that are kept apart.
    """
    rows: dict[str, list[int]] = {}
    shape_of = {}
    for name, leaf in trees.flatten(shapes).items():
        short = "/".join(name.split("/")[:depth]) if depth else name
        rows.setdefault(short, []).append(math.prod(leaf.shape))
        shape_of[short] = "x".join(map(str, leaf.shape)) or "scalar"
    lines = []
    width = max(len(n) for n in rows)
    for name, counts in rows.items():
        shown = shape_of[name] if len(counts) == 1 else f"{len(counts)} tensors"
        lines.append(f"{name:<{width}}  {shown:>16}  {sum(counts):>13,}")
    total = sum(sum(c) for c in rows.values())
    rule = "-" * (width + 33)
    return "\n".join([*lines, rule, f"{'total':<{width}}  {'':>16}  {total:>13,}"])


def of_config(config: Any, depth: int = 2) -> str:
    """Table of what a config would train; opens no data."""
    name = registry.named(config)
    row = registry.row(name)
    with registry.explained(name):
        values = settings.plain(config)["model"]
        model = from_mapping(row.config, values, "model.")
    shapes = opening.expected_shapes(name, model)
    return "\n".join(filter(None, [table(shapes, depth), row.note(shapes)]))


def of_model(source: str, depth: int = 2) -> str:
    """Table of the networks of a model directory or a training run."""
    found = opening.networks_of(source)
    parts = {name: opening.open_network(source, name).params for name in found}
    return table(parts, depth + 1 if depth else 0)


def cost_of(
    config: Any, *, topology: str | None = None, mesh: str | None = None
) -> tuple[cost.Cost, hardware.Accelerator | None, sharding.MeshConfig]:
    """Compiles the training step of a config for devices that need not be there.

    Args:
      config: experiment config.
      topology: such as "v5e:2x4" or "h200:8"; see `train.planning.hardware`.
      mesh: instead of the sizes of `config.mesh`: a preset, or "4x2x1" (data, fsdp,
        tensor). Without a topology it is on as many devices as the sizes say, on 8
        where one of them takes all that remain.

    Returns:
      (cost, the device, None without a topology, the mesh).

    Raises:
      DoesNotFit: the compiler says so.
    """
    values = settings.plain(config)
    wanted = settings.read_settings(config).mesh
    if mesh:
        wanted = dataclasses.replace(_mesh(mesh), rules=wanted.rules)
    accelerator = None
    if topology:
        accelerator, devices = hardware.devices(topology)
    else:
        count = math.prod(wanted.size(name) for name in sharding.AXES)
        devices = hardware.simulated(count if count > 0 else _DEVICES)
    made, rules = sharding.open_mesh(wanted, devices)
    system = registry.make(config)
    # For GPUs the CPU's compiler stands in, which knows none of their kernels.
    tpu = accelerator is not None and accelerator.platform == "tpu"
    target = platforms.compiling_for("tpu" if tpu else "")
    with sharding.in_force(made, rules), target, _without_cache():
        planned = program.Program(values, system, made, rules)
        try:
            return cost.of_program(planned), accelerator, wanted
        except jax.errors.JaxRuntimeError as error:
            used = re.search(r"Used ([\d.]+\w) of ([\d.]+\w)", str(error))
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            size = f"{used[1]} of {used[2]} a device" if used else "more than there is"
            raise DoesNotFit(
                f"the step does not fit: {size}; try --fit, a smaller batch_size, or a "
                "mesh that splits the state (--mesh fsdp)"
            ) from None


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Compiles without the cache: programs for absent devices cannot be read back."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


class DoesNotFit(UserError):
    """A step that needs more memory than a device has."""


def ways_to_fit(config: Any) -> list[dict[str, Any]]:
    """Changes to a config that save memory, the cheapest first.

    First what is kept for the backward pass, a key of `nn.transformer.REMAT`, then
    microbatches (`grad_accum`) as well.
    """
    remat = "model.transformer.remat"
    values = settings.plain(config)
    stack = "transformer" in values.get("model", {})
    found = [{remat: name} for name in REMAT] if stack else [{}]
    most = [{**found[-1], "grad_accum": 2**n} for n in range(1, 7)]
    sizes = values["batch_size"]  # or one a feed
    sizes = sizes.values() if isinstance(sizes, Mapping) else [sizes]
    return found + [
        way for way in most if all(size % way["grad_accum"] == 0 for size in sizes)
    ]


def fits(config: Any, way: Mapping[str, Any], **where: Any) -> tuple[bool, str, Any]:
    """Whether a config fits with some changes.

    Args:
      config: experiment config.
      way: one of `ways_to_fit`.
      where: `topology` and `mesh` of `cost_of`.

    Returns:
      (whether it fits, a line about it, what `cost_of` gives or None).
    """
    changed = override(
        config.copy_and_resolve_references(), [f"{k}={v!r}" for k, v in way.items()]
    )
    shown = " ".join(f"--config.{k}={v}" for k, v in way.items()) or "as it is"
    try:
        found = cost_of(changed, **where)
    except DoesNotFit as error:
        return False, f"{shown}: {str(error).partition(';')[0]}", None
    except UserError as error:
        if "grad_accum" not in way:
            raise
        # Microbatches that the mesh does not divide.
        return False, f"{shown}: {error}", None
    planned, accelerator, _ = found
    fine = planned.memory.total <= accelerator.memory
    verdict = "fits" if fine else "does not fit"
    used = f"{_bytes(planned.memory.total)} of {_bytes(accelerator.memory)}"
    note = registry.make(changed).note_on_microbatches(way.get("grad_accum", 1))
    note = f"; {note}" if note and fine else ""
    return fine, f"{shown}: {used}, {verdict}{note}", found


def _mesh(text: str) -> sharding.MeshConfig:
    if text in sharding.PRESETS:
        return sharding.MeshConfig(preset=text)
    sizes = text.split("x")
    if len(sizes) != 3 or not all(s.isdigit() and int(s) for s in sizes):
        raise UserError(
            f"--mesh is '{text}'; write a preset ({', '.join(sharding.PRESETS)}) or "
            "the sizes of data, fsdp and tensor as 4x2x1"
        )
    data, fsdp, tensor = map(int, sizes)
    return sharding.MeshConfig(data=data, fsdp=fsdp, tensor=tensor)


def cost_table(
    found: cost.Cost,
    accelerator: hardware.Accelerator | None,
    mesh: sharding.MeshConfig,
) -> str:
    """The findings of `cost_of`, for people.

    Args:
      found, accelerator, mesh: as `cost_of` returns them.
    """
    memory = found.memory
    rows = [
        ("parameters", _si(found.parameters), ""),
        ("model FLOPs a step", _si(found.model_flops), "3 x forward, at most counted"),
        ("counted FLOPs", _si(found.counted_flops), "with what is recomputed"),
        ("XLA's, a device", _si(found.compiled_flops), "bodies of loops once"),
        (),
        *((f"{name}, a device", _bytes(x), "") for name, x in vars(memory).items()),
        ("all memory, a device", _bytes(memory.total), _verdict(memory, accelerator)),
        (),
    ]
    sums = collectives.total(list(found.collectives))
    for (kind, axes), value in sums.items():
        if value >= 0.001 * sum(sums.values()):
            rows.append((kind, _bytes(value), f"sent by each device, {'+'.join(axes)}"))
    if accelerator:
        slow = ("data",) if mesh.size("slices") > 1 else ()
        times = found.times(accelerator, slow)
        fast, sure = max(times.values()), sum(times.values())
        rows.append(())
        rows += [(name, f"{1e3 * x:.3f} ms", "") for name, x in times.items()]
        rows.append(("step, overlapped", f"{1e3 * fast:.3f} ms", "roofline: at best"))
        rows.append(("step, in a row", f"{1e3 * sure:.3f} ms", "nothing overlaps"))
        best, worst = (found.mfu(accelerator, x) for x in (fast, sure))
        rows.append(
            ("MFU", f"{worst:.1%}", f"to {best:.1%} of {accelerator.name}'s peak")
        )
    shown = " x ".join(f"{name}={size}" for name, size in found.mesh.items())
    lines = [f"{found.devices} devices: {shown}", ""]
    for row in rows:
        name, value, note = row or ("", "", "")
        lines.append(f"{name:<24}{value:>14}  {note}".rstrip())
    largest = sorted(found.collectives, key=lambda op: -op.wire_bytes)[:_LARGEST]
    if largest:
        lines += [
            "",
            "the largest collectives: sent by each device, array, times, where",
        ]
    for op in largest:
        where = op.source.rsplit("/", 3)[-3:]
        lines.append(
            f"{op.kind:<20}{_bytes(op.wire_bytes):>14}  {op.shape[:40]} x {op.count}  "
            + "/".join(where)
        )
    if accelerator and found.operations:
        lines += ["", *_expected(found.operations, accelerator)]
    return "\n".join(lines)


def _expected(
    operations: Sequence[estimates.Operation], accelerator: hardware.Accelerator
) -> list[str]:
    """Lines on where the compiler expects a step's time to go."""

    def milliseconds(cycles: int) -> str:
        return f"{1e3 * cycles / accelerator.clock:.3f} ms"

    total = milliseconds(sum(operation.total for operation in operations))
    unknown = sum(op.count for op in operations if not op.cycles)
    lines = [
        "what the compiler expects of each device, a guess by its own figures "
        f"(without links, and {unknown} runs of kernels and the like)",
        f"{'all':<24}{total:>14}",
    ]
    lines += [
        f"{kind:<24}{milliseconds(cycles):>14}"
        for kind, cycles in estimates.by_kind(operations).items()
        if cycles
    ]
    lines += ["", "the dearest that are no products: all runs, shape, runs, where"]
    # What differs in nothing that is shown is one line.
    alike: dict[tuple[str, str, str], list[estimates.Operation]] = {}
    for op in operations:
        if op.kind != "products" and op.cycles:
            where = "/".join(op.source.rsplit("/", 3)[-3:])
            alike.setdefault((op.kind, op.shape[:40], where), []).append(op)
    sums = {key: sum(op.total for op in group) for key, group in alike.items()}
    for key in sorted(sums, key=sums.__getitem__, reverse=True)[:_DEAREST]:
        kind, shape, where = key
        runs = sum(op.count for op in alike[key])
        line = f"{kind:<20}{milliseconds(sums[key]):>14}  {shape} x {runs}  {where}"
        lines.append(line.rstrip())
    return lines


def _verdict(memory: cost.Memory, accelerator: hardware.Accelerator | None) -> str:
    if accelerator is None:
        return ""
    fits = "fits" if memory.total <= accelerator.memory else "DOES NOT FIT"
    return f"of {_bytes(accelerator.memory)}: {fits}"


def _si(value: float) -> str:
    units = ("", "k", "M", "G", "T", "P")
    power = min(len(units) - 1, max(0, int(math.log10(max(value, 1.0)) // 3)))
    return f"{value / 1000**power:.2f} {units[power]}".rstrip()


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.2f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"
