"""What a training step costs under each allocator that this machine has.

    python benchmarks/allocators.py
    python benchmarks/allocators.py --config configs/vqgan/faces64.py --turns 5

The engine's step of a config on a made-up batch, in a process of its own for each
allocator (GPTFACE_ALLOCATOR); they take turns, so that a noisy moment of the machine
hits them all, and of each the fastest step counts. CPU seconds are those of all cores:
on a machine that does other work too they say more than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

from gptface_jax.core import allocator
from gptface_jax.core.config import load_config


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Each step's "wall" and "cpu" seconds and page "faults"; "held", the most GiB."""
    import jax
    import numpy as np

    from gptface_jax.experiments import registry
    from gptface_jax.train import program, sharding

    config = load_config(options.config)
    config.batch_size = options.batch or config.batch_size
    rng = np.random.default_rng(0)

    def made_up(x):
        whole = np.issubdtype(x.dtype, np.integer)
        values = rng.integers(5, 999, x.shape) if whole else rng.random(x.shape)
        return jax.device_put(values.astype(x.dtype))

    mesh, rules = sharding.open_mesh(sharding.MeshConfig(), jax.devices()[:1])
    with sharding.in_force(mesh, rules):
        planned = program.Program(config, registry.make(config), mesh, rules)
        state, shardings = planned.create()
        step, _ = planned.step(shardings)
        constants, batches = planned.constants(), planned.batches()
        batches = jax.tree.map(made_up, batches)
        record: dict[str, list[float]] = {"wall": [], "cpu": [], "faults": []}
        for number in range(options.steps + 2):
            before = time.perf_counter(), time.process_time(), _faults()
            state, metrics = step(state, constants, batches)
            jax.block_until_ready(metrics)
            after = time.perf_counter(), time.process_time(), _faults()
            if number >= 2:  # the first ones compile and fill the allocator
                for name, start, end in zip(record, before, after):
                    record[name].append(end - start)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return record | {"held": [held]}


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def table(results: dict[str, list[dict[str, list[float]]]]) -> str:
    """Rows of Markdown, one an allocator: the best step of its runs."""
    rows = ["| allocator | ms | CPU ms | page faults | GiB held |", "| --- |" * 5]
    for name, runs in results.items():
        best = {k: min(v for run in runs for v in run[k]) for k in runs[0]}
        rows.append(
            f"| {'glibc' if name == 'off' else name} | {1e3 * best['wall']:.0f} "
            f"| {1e3 * best['cpu']:.0f} | {best['faults']:,.0f} | {best['held']:.2f} |"
        )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/gptface/faces64.py")
    parser.add_argument("--batch", type=int, help="default: of the config")
    parser.add_argument("--steps", type=int, default=10, help="of each process")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        allocator.start_again("benchmark")
        print(json.dumps(measure(options)))
        return
    names = ["off", *filter(allocator.find, allocator.NAMES)]
    results: dict[str, list] = {name: [] for name in names}
    command = [sys.executable, *sys.argv, "--worker"]
    for _ in range(options.turns):
        for name in names:
            environment = {**os.environ, allocator.SWITCH: name, "JAX_PLATFORMS": "cpu"}
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, check=True
            )
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(table({name: results[name]}).splitlines()[-1], file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    main()
