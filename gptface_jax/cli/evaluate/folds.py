"""predictions of several folds put together, with intervals over people

for k in 0 1 2 3 4; do
  gptface evaluate perception --model runs/fold$k --images faces/ --fold $k/5 \\
      --task affect_faces --limit 100000 --samples fold$k.jsonl
done
gptface evaluate folds fold?.jsonl --against cnn?.jsonl --out figures.json

Of expressions accuracy and balanced accuracy over all pictures, beside the share of the
most frequent expression; of ages the mean error, beside that of the median age. In
brackets the 95 % interval of a bootstrap over people, whose pictures stay together.
With --against also the difference from another model on the same pictures, whose
interval is that of pairs.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE.jsonl",
        help="of perception --samples",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="FILE.jsonl",
        help="of another",
    )
    parser.add_argument("--out", metavar="FILE.json", help="the figures as JSON")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols import folds

    against = folds.read(options.against) if options.against else ()
    found = folds.figures(folds.read(options.files), against)
    for task, values in found.items():
        print(f"{task}: {values['count']} pictures of {values['people']} people")
        for name, value in values.items():
            if isinstance(value, list):
                middle, low, high = value
                print(f"  {name:12s}{middle:8.3f}  [{low:.3f}, {high:.3f}]")
            elif name not in ("count", "people"):
                print(f"  {name:12s}{value:8.3f}")
    _shared.write(found, options.out)
