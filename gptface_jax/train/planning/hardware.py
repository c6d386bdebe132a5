"""Accelerators: what one device can do, and topologies to compile for without one.

Peaks are the makers' figures for dense bfloat16; links are what one device can send
to all neighbours together.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from typing import Any

import jax

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError, nearest

GB, GIB, TERA = 1e9, 2**30, 1e12


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One device.

    Attributes:
      name: as in --topology.
      peak_flops: bfloat16 matrix products, FLOP/s.
      memory: bytes that a program can have.
      bandwidth: of the memory, bytes/s.
      link: to the other devices of a slice or node, bytes/s in one direction.
      network: between slices or nodes, bytes/s for each device.
      source: of the figures.
      clock: cycles/s, of TPUs: what `peak_flops` and the number of matrix units give.
    """

    name: str
    peak_flops: float
    memory: float
    bandwidth: float
    link: float
    network: float
    source: str
    clock: float = math.nan

    @property
    def platform(self) -> str:
        """ "tpu" or "gpu"."""
        return "tpu" if re.match(r"v\d", self.name) else "gpu"


ACCELERATORS = {
    a.name: a
    for a in (
        Accelerator(
            "v5e", 197 * TERA, 15.75 * GIB, 819 * GB, 200 * GB, 3.1 * GB,
            "cloud.google.com/tpu/docs/v5e: 1,600 Gbps ICI, 200 Gbps for 8 chips",
            clock=1.5 * GB,
        ),
        Accelerator(
            "v5p", 459 * TERA, 95.74 * GIB, 2765 * GB, 600 * GB, 6.25 * GB,
            "cloud.google.com/tpu/docs/v5p: 4,800 Gbps ICI, 200 Gbps for 4 chips",
            clock=1.75 * GB,
        ),
        Accelerator(
            "v6e", 918 * TERA, 31.25 * GIB, 1640 * GB, 448 * GB, 12.5 * GB,
            "cloud.google.com/tpu/docs/v6e: 3,584 Gbps ICI, 800 Gbps for 8 chips",
            clock=1.75 * GB,
        ),
        Accelerator(
            "h100", 989 * TERA, 79.1 * GIB, 3350 * GB, 450 * GB, 50 * GB,
            "NVIDIA H100 SXM data sheet; NVLink 900 GB/s both ways, 400 Gb/s NIC",
        ),
        Accelerator(
            "h200", 989 * TERA, 139.8 * GIB, 4800 * GB, 450 * GB, 50 * GB,
            "NVIDIA H200 data sheet; NVLink 900 GB/s both ways, 400 Gb/s NIC",
        ),
    )
}  # fmt: skip


def parse(topology: str) -> tuple[Accelerator, tuple[int, ...]]:
    """ "v5e:2x4" -> (accelerator, (2, 4)).

    Raises:
      UserError: an unknown name, or a shape that is none.
    """
    name, _, shape = topology.partition(":")
    if name not in ACCELERATORS:
        raise UserError(
            f"topology '{topology}': '{name}' is unknown{nearest(name, ACCELERATORS)}; "
            f"known: {', '.join(ACCELERATORS)}"
        )
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise UserError(f"topology '{topology}' has no shape; write {name}:2x4 or so")
    return ACCELERATORS[name], tuple(map(int, shape.split("x")))


def devices(topology: str) -> tuple[Accelerator, list[Any]]:
    """Devices to compile for: of a TPU without having one, else simulated on the CPU.

    To be called before JAX has looked for devices.

    Raises:
      UserError: libtpu is missing or does not know the topology, or the devices
        cannot be simulated any more.
    """
    accelerator, shape = parse(topology)
    if accelerator.platform != "tpu":
        return accelerator, simulated(math.prod(shape))
    # Without these libtpu asks the network for the machine that it is on.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{accelerator.name}-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(topology, platform="tpu")
    except Exception as error:
        text = str(error).splitlines()[0]
        raise UserError(
            f"topology '{topology}': {text}; compiling for TPUs needs libtpu: "
            + extras.install("tpu")
        ) from None
    return accelerator, list(found.devices)


def simulated(count: int) -> list[Any]:
    """`count` devices of the CPU.

    Raises:
      UserError: JAX has started with fewer.
    """
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        pass  # it has started; there may be enough
    found = jax.devices("cpu")
    if len(found) < count:
        raise UserError(
            f"{count} devices asked for, and JAX has started with {len(found)}; run "
            "this in a process of its own"
        )
    return found[:count]
