"""Checkpoints with Orbax: asynchronous, latest and best kept, self-describing.

`<workdir>/checkpoints/<step>/` holds separate items: params, opt_state, state
(where a system has one), ema (where it is on) and meta, a JSON with the step,
the data position, the config and extra files such as a vocabulary. Reading the
parameters therefore needs neither a template nor the code that trained them.
Checksums of all files are among them.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.train import checkpoint_folder, checkpoint_meta, integrity
from gptface_jax.train.state import TrainState

_BEST = "best"  # the one metric stored with a checkpoint


class Checkpoints:
    """The checkpoints of one work folder."""

    def __init__(
        self, workdir: Any, *, keep: int = 2, best_mode: str = "min", track: bool = True
    ):
        """Opens (and creates) `<workdir>/checkpoints`.

        Args:
          workdir: folder of the run.
          keep: number of latest checkpoints kept.
          best_mode: "min" or "max" of the metric given to `save`.
          track: whether `save` is given a metric, so that a best one exists.
        """
        self.directory = pathlib.Path(workdir).absolute() / "checkpoints"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot create '{self.directory}': {error.strerror or error}; "
                "choose another --workdir"
            ) from error
        self._silence = contextlib.ExitStack()
        self._silence.enter_context(checkpoint_folder.quiet())
        self.manager = _open_manager(
            self.directory, keep, best_mode, track, self._written
        )

    def latest_step(self) -> int | None:
        return self.manager.latest_step()

    def steps(self) -> list[int]:
        return sorted(self.manager.all_steps())

    def best_step(self) -> int | None:
        return self.manager.best_step()

    def save(
        self, state: TrainState, meta: Mapping[str, Any], metric: float | None = None
    ) -> None:
        """Starts writing the checkpoint of step `meta["step"]` and returns.

        The arrays are copied to the host before the return, so the state may be
        donated to the next step.

        Raises:
          UserError: the folder cannot be written (this or the previous save).
        """
        step = int(meta["step"])
        # Written already: a run that ends at a step at which it saved as well.
        if step in self.manager.all_steps():
            return
        items = {"params": state.params, "opt_state": state.opt_state}
        if jax.tree.leaves(state.state):
            items["state"] = state.state
        if state.ema is not None:
            items["ema"] = state.ema
        # An item of its own for each, so that parameters can be read without the rest.
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args["meta"] = ocp.args.JsonSave(dict(meta))
        metrics = None if metric is None else {_BEST: float(metric)}
        try:
            begun = self.manager.save(
                step, metrics=metrics, args=ocp.args.Composite(**args)
            )
        except Exception as error:
            raise self._save_failed(error) from error
        if not begun:  # as Orbax answers where there is a later one
            raise UserError(
                f"'{self.directory}' has checkpoints {self.steps()}, so that step "
                f"{step} is not saved; move those of later steps away"
            )

    def delete_from(self, step: int) -> None:
        """Deletes the checkpoints of this step and of later ones, on all processes."""
        for later in (s for s in self.steps() if s >= step):
            self.manager.delete(later)

    def _written(self) -> None:
        """Adds checksums to what was written, just before it gets its final name."""
        if jax.process_index() == 0:
            for draft in self.directory.glob(f"*{checkpoint_folder.UNFINISHED}*"):
                integrity.write(draft)

    def check(self) -> None:
        """Raises the UserError of a background save that failed meanwhile."""
        try:
            self.manager.check_for_errors()
        except Exception as error:
            raise self._save_failed(error) from error

    def wait(self) -> None:
        """Waits for the save in progress.

        Raises:
          UserError: it could not be written.
        """
        try:
            self.manager.wait_until_finished()
        except Exception as error:
            raise self._save_failed(error) from error

    def _save_failed(self, error: Exception) -> UserError:
        checkpoint_folder.remove_unfinished(self.directory)
        intact = checkpoint_folder.complete_steps(self.directory)
        kept = f"intact: steps {intact}" if intact else "there was none before"
        return UserError(
            f"cannot save a checkpoint in '{self.directory}': {_reason(error)}; "
            f"earlier checkpoints {kept}; free some space or choose another --workdir, "
            "then run the same command to go on"
        )

    def meta(self, step: int) -> dict[str, Any]:
        """The meta item, `extra_files` as bytes."""
        return checkpoint_meta.read(self.directory / str(step))

    def restore(
        self, step: int, template: TrainState, constants: Iterable[str] = ()
    ) -> TrainState:
        """The state of a checkpoint, in the shapes and shardings of `template`.

        Args:
          step: an existing step.
          template: `ShapeDtypeStruct` leaves with shardings, on any mesh.
          constants: names of the system's, which older versions kept in the state.

        Raises:
          UserError: a parameter is missing, left over or of another shape or
            dtype, or the files are damaged.
        """
        names = {"params": template.params, "opt_state": template.opt_state}
        if jax.tree.leaves(template.state):
            names["state"] = {
                **template.state, **self._frozen(step, template, constants)
            }  # fmt: skip
        if template.ema is not None:
            names["ema"] = template.ema
        for name, tree in names.items():
            # Orbax would restore what fits and complain in terms of its own trees.
            self._check_fits(step, name, tree)
        args = {name: ocp.args.StandardRestore(tree) for name, tree in names.items()}
        try:
            read = self.manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:
            raise UserError(
                f"checkpoint '{self.directory / str(step)}' cannot be read: "
                f"{_reason(error)}; move that folder away to resume from an earlier one"
            ) from error
        return TrainState(
            step=jax.device_put(np.int32(step), template.step.sharding),
            params=read["params"],
            opt_state=read["opt_state"],
            state={k: read["state"][k] for k in template.state}
            if "state" in names
            else template.state,
            ema=read["ema"] if "ema" in names else None,
        )

    def _frozen(self, step: int, template: TrainState, names: Iterable[str]) -> Any:
        """Shapes of the constants in a saved state, to be read and let go."""
        folder = self.directory / str(step) / "state"
        saved = checkpoint_folder.metadata(folder) if names and folder.is_dir() else {}
        where = template.step.sharding
        return {
            name: jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
                saved[name],
            )
            for name in names
            if name in saved
        }

    def _check_fits(self, step: int, item: str, tree: Any) -> None:
        folder = self.directory / str(step) / item
        where = f"checkpoint '{self.directory / str(step)}'"
        if not folder.is_dir():
            raise UserError(
                f"{where} has no '{item}'; it is of another model or config"
            )
        saved = {
            k: (tuple(v.shape), str(np.dtype(v.dtype)) if _plain(v) else None)
            for k, v in trees.flatten(checkpoint_folder.metadata(folder)).items()
            if hasattr(v, "shape")
        }
        wanted = {
            k: (tuple(v.shape), str(v.dtype) if _plain(v) else None)
            for k, v in trees.flatten(tree).items()
        }
        for key in sorted(set(saved) | set(wanted)):
            if saved.get(key) != wanted.get(key):
                raise UserError(
                    f"{where}: {item}/{key} is {_show(saved.get(key))} there and "
                    f"{_show(wanted.get(key))} in this model; use another --workdir"
                )

    def close(self) -> None:
        """Waits for the save in progress and closes; a failed save is silent."""
        try:
            self.manager.close()
        except Exception:  # reported by `wait` or `check` where it matters
            pass
        self._silence.close()


def _plain(x: Any) -> bool:
    """Whether the dtype is one that numpy knows (a typed random key is not)."""
    return x.dtype is not None and not jax.dtypes.issubdtype(
        x.dtype, jax.dtypes.prng_key
    )


def _show(entry: Any) -> str:
    return "missing" if entry is None else f"{entry[1] or 'key'}{list(entry[0])}"


def _open_manager(directory, keep, best_mode, track, written) -> ocp.CheckpointManager:
    policies = ocp.checkpoint_managers
    latest = policies.LatestN(n=keep)
    options: dict[str, Any] = {"preservation_policy": latest}
    if track:
        # max_to_keep with best_fn deletes the latest step: name both policies.
        best = policies.BestN(
            get_metric_fn=lambda m: m[_BEST],
            reverse=best_mode == "min",
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        options = {
            "preservation_policy": policies.AnyPreservationPolicy([latest, best]),
            "best_fn": lambda m: m[_BEST],
            "best_mode": best_mode,
        }
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            async_options=ocp.AsyncOptions(post_finalization_callback=written),
            **options,
        ),
    )


def _choose_step(directory: pathlib.Path, step: int | str | None) -> int:
    steps = checkpoint_folder.complete_steps(directory)
    if not steps:
        raise UserError(
            f"no checkpoint in '{directory}'; train first, or name another run"
        )
    if step is None:
        return steps[-1]
    if step == "best":
        checkpoints = Checkpoints(directory.parent, best_mode=_best_mode(directory))
        best = checkpoints.best_step()
        checkpoints.close()
        return steps[-1] if best is None else best
    if step not in steps:
        raise UserError(f"no checkpoint of step {step} in '{directory}'; have {steps}")
    return int(step)


def _best_mode(directory: pathlib.Path) -> str:
    meta = checkpoint_meta.read(
        directory / str(checkpoint_folder.complete_steps(directory)[-1])
    )
    return meta["config"].get("best_mode", "min")


def read_meta(workdir: Any, step: int | str | None = None) -> dict[str, Any]:
    """The meta of a run's checkpoint, see `restore_params`."""
    directory = pathlib.Path(workdir).absolute() / "checkpoints"
    return checkpoint_meta.read(directory / str(_choose_step(directory, step)))


def restore_params(
    workdir: Any,
    step: int | str | None = None,
    *,
    ema: bool = True,
    collections: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of a run, read without a model and on any hardware.

    Args:
      workdir: folder of the run.
      step: None = the latest, "best" = the best by the run's metric (the latest
        where nothing was evaluated), or a step.
      ema: prefer the averaged parameters where the run kept them.
      collections: of the state, which come beside the parameters by their names; those
        that the run has not are left out.

    Returns:
      (nested dict of numpy arrays, meta: dict with step, system, config and
      extra_files name -> bytes).

    Raises:
      UserError: no such checkpoint.
    """
    directory = pathlib.Path(workdir).absolute() / "checkpoints"
    folder = directory / str(_choose_step(directory, step))
    item = folder / "ema" if ema and (folder / "ema").is_dir() else folder / "params"
    # Not the optimizer's moments, which are most of the bytes. What is looked for by
    # name is missed where all of it is lost.
    read = ["meta", item.name, *["ema"] * ema, *["state"] * bool(collections)]
    if wrong := integrity.problem(folder, read):
        raise UserError(
            f"checkpoint '{folder}' is damaged: {wrong}; there are the steps "
            f"{checkpoint_folder.complete_steps(directory)}"
        )
    params = _read_item(item)
    # A network that learns nothing without gradients was kept without a state.
    if collections and (folder / "state").is_dir():
        state = _read_item(folder / "state")
        params |= {name: state[name] for name in collections if name in state}
    return params, checkpoint_meta.read(folder)


def _read_item(item: pathlib.Path) -> dict[str, Any]:
    """A part of a checkpoint as numpy: the run's mesh and devices are not needed."""
    tree = checkpoint_folder.metadata(item)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    with (
        checkpoint_folder.quiet(),
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader,
    ):
        args = ocp.args.PyTreeRestore(item=tree, restore_args=as_numpy)
        return reader.restore(item, args=args)


def _reason(error: BaseException) -> str:
    """The innermost cause in one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    for known in (
        "No space left on device",
        "File too large",
        "Read-only file system",
        "Permission denied",
        "Disk quota exceeded",
    ):
        if known.lower() in text.lower():
            return known
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]
