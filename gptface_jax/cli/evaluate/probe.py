"""how good the features of a backbone are with few labels

The backbone is frozen: it reads [CLS] image [SEP], its layers are pooled, and a small
head learns attributes or expressions from a part of the labels. Each model stands
beside itself untrained (random), a small network trained from scratch on the same
labelled pictures (cnn), and the most common label (majority).

gptface evaluate probe --model demo --images my_photos
gptface evaluate probe --model milm=runs/milm --model milm_itm=runs/gptface64 \\
    --tokenizer runs/vqgan64 --images my_photos \\
    --out probe.json --plot probe.png
gptface evaluate probe --images my_photos --task expressions \\
    --names neutral happiness --fractions 0.2 0.5 1
gptface evaluate probe --images synthetic --limit 2000 --fractions 0.1 1

--images holds a train and a test split with nobody in both. A seed decides the labelled
subset (of which 1 in 5 is held out to choose the epoch), the start and the order; a
smaller subset is a part of a larger one. Printed are mean and standard deviation over
the seeds, in percent: accuracy, and the mean of the hit rates of both (all) classes,
which the most common label brings to 50 and no further.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared
from gptface_jax.core import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_arguments(parser)
    parser.add_argument(
        "--test-split",
        nargs="+",
        default=["test"],
        help="splits of --images to test on",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME=PATH",
        help="bundled name, model directory or training run, with a name for the table "
        "or without; repeatable; default demo",
    )
    parser.add_argument("--tokenizer", help="VQGAN run, where a --model is a run")
    parser.add_argument(
        "--task",
        choices=("attributes", "expressions"),
        default="attributes",
        help="attributes, each there or not; or expressions, one of several",
    )
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        help="attributes or expressions, e.g. Smiling; default all in the pictures",
    )
    parser.add_argument(
        "--per-class",
        type=int,
        default=0,
        help="most training pictures of an expression, a quarter as many to test on; "
        "default 0, all",
    )
    parser.add_argument(
        "--fractions",
        nargs="+",
        type=float,
        help="shares of the labels; default 0.01 0.1 1, of expressions 0.2 0.5 1",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        help="of subset, start and order; mean and deviation are over them",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        type=int,
        default=[],
        help="layers whose outputs are pooled, from 1 on; default all",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        default=["random", "cnn", "majority"],
        choices=("random", "cnn", "majority"),
        help="what stands beside the models, as said above; none after --baselines",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=0,
        help="visits of the labelled subset; default 20 to 100, the smaller the more",
    )
    parser.add_argument("--out", help="the figures of every seed as JSON")
    parser.add_argument("--plot", metavar="FILE", help="accuracy against labels, PNG")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps import plotting
    from gptface_jax.evaluate import few_shot
    from gptface_jax.protocols import few_shot as probing

    paths = _shared.named(options.model or ["demo"], "--model")
    models = {
        name: _shared.model(options, "edit", path) for name, path in paths.items()
    }
    spec = _source.spec(options, max(model.size for model in models.values()))
    train, test = probing.splits(
        spec, spec.pop("split", None) or "train", options.test_split
    )
    task = probing.make_task(options.task, train, options.names, options.per_class)
    default = [0.01, 0.1, 1.0] if task.kind == "attributes" else [0.2, 0.5, 1.0]
    found = probing.probe(
        models,
        task,
        train,
        test,
        options.fractions or default,
        options.seeds,
        training=few_shot.Training(epochs=options.epochs),
        layers=options.layers,
        baselines=options.baselines,
        progress=not options.quiet,
    )
    print(
        f"{task.kind}: {len(task.names)}, {found['train']} pictures to learn from, "
        f"{found['test']} to test on, {len(options.seeds)} seeds"
    )
    print(probing.table(found["rows"]))
    if (balanced := found.get("balanced")) is not None:
        print(
            f"balanced: over {balanced} of the {len(task.names)} attributes, which at "
            f"least {few_shot.FEWEST} test pictures have and as many have not"
        )
    if options.out:
        about = {"models": {n: [paths[n], m.digest] for n, m in models.items()}}
        about |= {"images": spec, "seeds": options.seeds, "layers": options.layers}
        files.write_text(options.out, files.json_text({**about, **found}, 2))
    if options.plot:
        metrics = ("accuracy", "balanced_accuracy")
        plotting.plot_fractions(found["rows"], metrics, options.plot)
