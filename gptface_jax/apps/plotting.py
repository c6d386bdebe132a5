"""The curves of runs, from their metrics.jsonl, and plots of what was evaluated."""

from __future__ import annotations

import fnmatch
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core import extras, files
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.train import goodput

LOG = "metrics.jsonl"
_HELD_OUT = "eval/"
_NO_METRICS = ("step", "rewound_from", "spike_at", "seconds")
_TIME = "time/"  # shares of the wall time, in one panel, see `train.goodput`
_FIRST = ("loss", "lr", "grad_norm")  # panels that come before the others
_MOST = 24  # panels that are drawn unasked

Curve = tuple[np.ndarray, np.ndarray]  # steps int [N], values float [N]


def read_log(run: str | os.PathLike) -> dict[str, Curve]:
    """Series that a run logged, name -> (steps, values); only finite values.

    Args:
      run: its work folder, or a file of such lines.

    Raises:
      UserError: nothing there.
    """
    path = pathlib.Path(run)
    path = path / LOG if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"'{run}' has no {LOG}; give the --workdir of a training run")
    points: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line that is being written
        for name, value in row.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if name not in _NO_METRICS and number and math.isfinite(value):
                points.setdefault(name, []).append((row["step"], value))
    return {
        name: (np.array([s for s, _ in found]), np.array([v for _, v in found]))
        for name, found in points.items()
    }


def panels(names: Sequence[str], wanted: Sequence[str] = ()) -> list[str]:
    """The panels to draw; a metric and its held-out form share one, as do all "time/".

    Args:
      names: of all metrics.
      wanted: names or patterns ("itm_*"); none: all, the usual ones first.

    Raises:
      UserError: a pattern that nothing matches.
    """
    names = ["time" if n.startswith(_TIME) else n for n in names]
    every = sorted({n.removeprefix(_HELD_OUT) for n in names})
    if not wanted:
        first = [n for n in _FIRST if n in every]
        return (first + [n for n in every if n not in first])[:_MOST]
    chosen: list[str] = []
    for pattern in wanted:
        pattern = pattern.removeprefix(_HELD_OUT)
        matched = fnmatch.filter(every, pattern)
        if not matched:
            raise UserError(
                f"no run logs '{pattern}'{nearest(pattern, every)}; have "
                + ", ".join(every)
            )
        chosen += [n for n in matched if n not in chosen]
    return chosen


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Means of the last `window` values, fewer at the start. float [N] -> [N]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot(
    runs: Mapping[str, Mapping[str, Curve]],
    out: str | os.PathLike,
    metrics: Sequence[str] = (),
    smooth: int = 1,
) -> list[str]:
    """Draws every metric of all runs into one picture.

    Args:
      runs: label -> what `read_log` gives.
      out: the picture, of any kind that matplotlib writes.
      metrics: see `panels`.
      smooth: lines of the log over which training curves are averaged.

    Returns:
      The panels' names.

    Raises:
      UserError: matplotlib is missing, or a metric that no run has.
    """
    plt = _pyplot()
    chosen = panels([name for run in runs.values() for name in run], metrics)
    if not chosen:
        raise UserError("these runs have logged nothing yet; wait for a line")
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    size = (4.2 * columns, 3.0 * rows + 0.4)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False
    )
    lines = {}
    for axis, name in zip(axes.flat, chosen):
        if name == "time":
            lines |= _draw_time(axis, runs)
        for index, (label, run) in enumerate(runs.items()):
            colour = f"C{index % 10}"
            if name in run:
                steps, values = run[name]
                values = smoothed(values, smooth)
                (lines[label],) = axis.plot(steps, values, color=colour)
            if _HELD_OUT + name in run:
                held_out = run[_HELD_OUT + name]
                (line,) = axis.plot(*held_out, "o--", ms=3, color=colour)
                lines.setdefault(label, line)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
    for axis in list(axes.flat)[len(chosen) :]:
        axis.set_axis_off()
    title = "training: lines; held out: dots"
    figure.legend(
        lines.values(), lines, loc="outside upper center", ncols=4, fontsize=8,
        title=title, title_fontsize=8,
    )  # fmt: skip
    _save(figure, out)
    return chosen


def _draw_time(axis: Any, runs: Mapping[str, Mapping[str, Curve]]) -> dict[str, Any]:
    """A figure: of one run what its wall time went to, of several the share of steps.

    Returns:
      What the legend has to say of the lines.
    """
    axis.set_ylim(0, 1)
    if len(runs) == 1:
        (run,) = runs.values()
        steps = run[_TIME + "step"][0]
        parts = [name for name in goodput.PARTS if _TIME + name in run]
        shares = np.zeros((len(parts), len(steps)))
        for row, part in zip(shares, parts):
            where, values = run[_TIME + part]
            row[np.searchsorted(steps, where)] = values
        # A line tells of the steps before it.
        steps = np.concatenate([[0], steps])
        shares = np.concatenate([shares[:, :1], shares], 1)
        grey = ["#dddddd", *(f"C{i}" for i in range(3, 3 + len(parts)))]
        for level, part, colour in zip(np.cumsum(shares, 0), parts, grey):
            bottom = level - shares[parts.index(part)]
            axis.fill_between(
                steps, bottom, level, step="pre", color=colour, label=part
            )
        axis.legend(fontsize=6, loc="lower right")
        return {}
    drawn = {}
    for index, (label, run) in enumerate(runs.items()):
        if _TIME + "step" in run:
            (drawn[label],) = axis.plot(*run[_TIME + "step"], color=f"C{index % 10}")
    return drawn


def plot_fractions(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], out: str | os.PathLike
) -> None:
    """Figures against the share of labels, a line for each backbone.

    Args:
      rows: of `evaluate.few_shot.summary`; bars show one standard deviation.
      metrics: a panel each.
      out: the picture, of any kind that matplotlib writes.

    Raises:
      UserError: matplotlib is missing.
    """
    plt = _pyplot()
    size = (4.6 * len(metrics), 3.6)
    figure, axes = plt.subplots(
        1, len(metrics), figsize=size, layout="constrained", squeeze=False
    )
    names = list(dict.fromkeys(row["backbone"] for row in rows))
    for axis, metric in zip(axes.flat, metrics):
        for name in names:
            own = [row for row in rows if row["backbone"] == name]
            shares = [100 * row["fraction"] for row in own]
            values = [row[metric] for row in own]
            spread = [row[f"{metric}_std"] for row in own]
            axis.errorbar(shares, values, spread, marker="o", ms=4, capsize=3)
        axis.set_xscale("log")
        axis.set_xticks(shares, [f"{share:g}" for share in shares], minor=False)
        axis.minorticks_off()
        axis.set_xlabel("labels used, %")
        axis.set_title(metric.replace("_", " "), fontsize=10)
    figure.legend(names, loc="outside upper center", ncols=len(names), fontsize=8)
    _save(figure, out)


def check(path: str | os.PathLike) -> str:
    """The format that a plot's ending asks for; without one it is a PNG.

    Raises:
      UserError: matplotlib is missing, or does not write such a file.
    """
    kinds = _pyplot().Figure().canvas.get_supported_filetypes()
    kind = os.path.splitext(path)[1].lower().removeprefix(".") or "png"
    if kind not in kinds:
        raise UserError(
            f"'{os.fspath(path)}' ends in '.{kind}'; a plot is a .png, .svg, .pdf or "
            "one of " + ", ".join(f".{name}" for name in sorted(kinds))
        )
    return kind


def _save(figure: Any, out: str | os.PathLike) -> None:
    """Writes a plot, complete or not at all; its folder is made."""
    with files.replacing(out) as partial:
        figure.savefig(partial, format=check(out), dpi=110)
    _pyplot().close(figure)


def _pyplot():
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise UserError("plots need matplotlib: " + extras.install("plot")) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def labels(runs: Sequence[str | os.PathLike]) -> list[str]:
    """Short names of work folders: what is left without the folders they share."""
    parts = [pathlib.Path(run).parts for run in runs]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return [os.path.join(*p[shared:]) for p in parts]


def reliability(found: Mapping[str, Mapping[str, Any]], out: str | os.PathLike) -> None:
    """Draws confidence against accuracy, as they are and with a temperature.

    Args:
      found: of `gptface evaluate calibration`, by question.
      out: the picture.

    Raises:
      UserError: matplotlib is missing.
    """
    plt = _pyplot()
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 3.2 * rows), squeeze=False
    )
    for axes, (name, row) in zip(grid.flat, found.items()):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for kind, marker in (("as it is", "o"), ("tempered", "x")):
            bins = row[kind]["reliability"]
            axes.plot(
                [b["confidence"] for b in bins],
                [b["accuracy"] for b in bins],
                marker=marker,
                label=f"{kind}: ECE {row[kind]['ece']:.3f}",
            )
        axes.set(
            title=name, xlabel="confidence", ylabel="right", xlim=(0, 1), ylim=(0, 1)
        )
        axes.legend(fontsize=7, loc="lower right")
    for axes in grid.flat[len(found) :]:
        axes.axis("off")
    figure.tight_layout()
    _save(figure, out)


def rates(rows: Sequence[Mapping[str, Any]], out: str | os.PathLike) -> None:
    """Draws how often edits show what was asked for, and with the opposite text.

    Args:
      rows: of `gptface evaluate edits`: "method", "forwards" and "mean", of some seeds.
      out: the picture.

    Raises:
      UserError: matplotlib is missing.
    """
    plt = _pyplot()
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axis = plt.subplots(
        figsize=(7, 1.2 + 0.32 * len(methods)), layout="constrained"
    )
    for row, method in enumerate(methods):
        same = [row for row in rows if row["method"] == method]
        for part, colour in (("asked", "C2"), ("opposite", "C3")):
            values = [row["mean"][part] for row in same]
            axis.plot([min(values), max(values)], [row] * 2, color=colour, lw=3)
            axis.plot(np.mean(values), row, "o", color=colour, ms=6)
        if same[0]["forwards"] is not None:  # nobody knows those of another program
            methods[row] = f"{method}  ({same[0]['forwards']})"
    axis.axvline(rows[0]["mean"]["before"], color="grey", ls=":")
    axis.set_yticks(range(len(methods)), methods, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel(
        "share of edits with the attribute: asked for (green), ruled out (red), before "
        "(dotted); forward passes in brackets",
        fontsize=8,
    )
    _save(figure, out)


def hidden_codes(
    figures: Mapping[str, Mapping[str, float]], out: str | os.PathLike
) -> None:
    """Draws the likelihood of codes behind spans and random masks, a line a run.

    Args:
      figures: run -> {"span_40": nats, "random_40": nats, ...}, of `evaluate masked`.
      out: the picture.

    Raises:
      UserError: matplotlib is missing.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(
        1, 2, figsize=(9.2, 3.8), layout="constrained", sharey=True
    )
    for axis, kind in zip(axes, ("span", "random")):
        for values in figures.values():
            own = {k.split("_")[1]: v for k, v in values.items() if k.startswith(kind)}
            axis.plot([int(k) for k in own], own.values(), marker="o", ms=4)
        axis.set_title(f"behind {kind} masks", fontsize=10)
        axis.set_xlabel("codes hidden, %")
    axes[0].set_ylabel("nats a hidden code")
    names = labels(list(figures))
    figure.legend(names, loc="outside upper center", ncols=len(names), fontsize=8)
    _save(figure, out)
