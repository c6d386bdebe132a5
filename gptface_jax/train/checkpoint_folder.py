"""Folders of checkpoints on disk: which are complete, and their repair."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from gptface_jax.core.errors import UserError
from gptface_jax.train import integrity

log = logging.getLogger(__name__)

UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint while it is written


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Orbax's log off the screen: its errors are raised as well."""
    logger = logging.getLogger("absl")

    def foreign(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger.addFilter(foreign)
    try:
        yield
    finally:
        logger.removeFilter(foreign)


def complete_steps(directory: pathlib.Path) -> list[int]:
    """Steps of the checkpoints that were written to their end, in order."""
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if p.name.isdigit() and p.is_dir()]
    return sorted(int(p.name) for p in found if (p / "meta").is_dir())


def repair(workdir: Any) -> None:
    """Makes the latest checkpoint one that a run can go on from.

    Removes what a killed save left and moves damaged newest checkpoints to
    `<workdir>/damaged`. Not for a folder in which a run is going on.

    Raises:
      UserError: there are checkpoints, and all of them are damaged.
    """
    if jax.process_index() == 0:
        directory = pathlib.Path(workdir).absolute() / "checkpoints"
        remove_unfinished(directory)
        _set_damaged_aside(directory)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("checkpoints are repaired")


def _set_damaged_aside(directory: pathlib.Path) -> None:
    steps = complete_steps(directory)
    # From the newest on, up to the first that is whole: checksums of all would be read
    # for minutes at every start.
    damaged = []
    for step in reversed(steps):
        wrong = integrity.problem(directory / str(step))
        if not wrong:
            break
        damaged.append((step, wrong))
    if damaged and len(damaged) == len(steps):
        raise UserError(
            f"all checkpoints in '{directory}' are damaged (step {steps[-1]}: "
            f"{damaged[0][1]}); bring one back from a copy, or use another --workdir"
        )
    for step, wrong in damaged:
        # Moved and not deleted: what is left may be worth more to its owner than to us.
        aside = directory.parent / "damaged" / str(step)
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        shutil.move(directory / str(step), aside)
        log.warning(
            "the checkpoint of step %d is damaged (%s) and now in '%s'; going on from "
            "step %d",
            step,
            wrong,
            aside,
            steps[-len(damaged) - 1],
        )


def remove_unfinished(directory: pathlib.Path) -> None:
    """Gives back the room that a failed or killed save took."""
    if jax.process_index() == 0 and directory.is_dir():
        for folder in directory.glob(f"*{UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)


def metadata(folder: pathlib.Path) -> Any:
    """Tree of shapes and dtypes of what one item of a checkpoint holds."""
    with quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        item = reader.metadata(folder).item_metadata
    return item.tree if hasattr(item, "tree") else item
