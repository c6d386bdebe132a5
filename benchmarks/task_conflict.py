"""Whether the tasks of a joint training pull the same way: cosines of their gradients.

python benchmarks/task_conflict.py runs/faceptor --batches 8 --out conflict.png

Of two tasks the cosine between the gradients of their losses, each on its own part of a
batch, over the parameters that both reach: 1 where they agree, 0 where neither minds
the other, below 0 where what helps one harms the other. Batches are those the run would
be trained on from its checkpoint on; means over them, with standard deviations. Any run
that logs a "TASK/loss" for several feeds will do (systems "faceptor", "shared").
"""

from __future__ import annotations

import argparse
import itertools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import tables
from tqdm import tqdm

from gptface_jax.core import trees
from gptface_jax.core.config import config_dict
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import training
from gptface_jax.train import checkpoint

STATE = ("batch_stats",)  # of systems that have one


def gradients(experiment, params, state, batch, step: int):
    """{task: {parameter path: gradient}} of every task's mean loss on a batch."""
    (phase,) = experiment.system.phases
    key = jax.random.fold_in(jax.random.key(0), step)
    constants = experiment.system.constants

    def losses(params):
        _, (_, metrics) = phase.loss(params, state, constants, batch, key, step)
        ends = "/loss"
        return {
            name.removesuffix(ends): total / count
            for name, (total, count) in metrics.items()
            if name.endswith(ends)
        }

    values, pull = jax.vjp(losses, params)
    zeros = jax.tree.map(jnp.zeros_like, values)
    return {
        task: trees.flatten(pull({**zeros, task: jnp.ones_like(zeros[task])})[0])
        for task in values
    }


def cosine(one: dict, other: dict) -> float:
    """Between two gradients, over the parameters that neither leaves alone."""
    both = [k for k in one if np.any(one[k]) and np.any(other[k])]
    product, first, second = (
        sum(np.vdot(x[k], y[k]) for k in both)
        for x, y in ((one, other), (one, one), (other, other))
    )
    return float(product / np.sqrt(first * second)) if both else float("nan")


def measure(run: str, batches: int, step: int | None) -> tuple[list[str], np.ndarray]:
    """(tasks, float64 [batches,tasks,tasks] cosines) of a run."""
    params, meta = checkpoint.restore_params(run, step, collections=STATE)
    state = {name: params.pop(name) for name in STATE if name in params}
    with tempfile.TemporaryDirectory() as folder:
        experiment = training.build(config_dict(meta["config"]), folder)
    run_once = jax.jit(lambda *given: gradients(experiment, *given))
    made = itertools.islice(experiment.batches_fn(meta["step"]), batches)
    tasks, rows = [], []
    for number, batch in enumerate(tqdm(made, total=batches)):
        slopes = jax.device_get(run_once(params, state, batch, number))
        tasks = sorted(slopes)
        rows.append([[cosine(slopes[a], slopes[b]) for b in tasks] for a in tasks])
    if len(tasks) < 2:
        raise UserError(f"'{run}' has one task, {tasks}; a conflict takes two")
    return tasks, np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="work folder of a training")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--step", type=int, help="of a checkpoint; default latest")
    parser.add_argument("--out", help="a picture of the table")
    options = parser.parse_args()
    tasks, cosines = measure(options.run, options.batches, options.step)
    mean, spread = cosines.mean(0), cosines.std(0)
    rows = [["", *tasks[:-1]]]
    for i, task in enumerate(tasks[1:], 1):
        cells = [f"{mean[i, j]:.2f} +- {spread[i, j]:.2f}" for j in range(i)]
        rows.append([task, *cells, *[""] * (len(tasks) - 1 - i)])
    print(tables.aligned(rows))
    if options.out:
        draw(options.out, tasks, mean)


def draw(path: str, tasks: list[str], mean: np.ndarray) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(1 + len(tasks) * 0.7,) * 2)
    axes.imshow(mean, cmap="RdBu", vmin=-1, vmax=1)
    ticks = range(len(tasks))
    axes.set_xticks(ticks, tasks, rotation=60, ha="right")
    axes.set_yticks(ticks, tasks)
    for i, j in itertools.product(ticks, ticks):
        axes.text(j, i, f"{mean[i, j]:.2f}", ha="center", va="center", fontsize=7)
    figure.savefig(path, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
