"""what a Faceptor says of faces whose truth is known

gptface evaluate perception --model runs/faces --images synthetic --seed 77 --limit 500
gptface evaluate perception --model runs/faces --task affect_faces \\
    --images my_photos --split test --limit 1232
gptface evaluate perception --model runs/faces --task biattr_lfw \\
    --images my_photos --split test --attributes Smiling Eyeglasses

Pictures are upright faces, taken as they are. Landmarks are judged by the normalised
mean error: by the distance of the outer eye corners and of the middles of the eyes, by
the root of the area and by the diagonal of the face's box (of the points' where the
picture has none); with median, area and failures at 0.1 of the first, and area and
failures at 0.07 by the box. Points that are not known do not count, nor a picture
without what is divided by: "judged" says how many do. Parsing is judged by F1 of one
confusion matrix, ages by the mean error and the share within five years, expressions
and attributes by accuracy and by its mean over what is true (balanced). Recognition is
judged on drawn faces only. "intervals" holds the 95 % interval of the first figure, of
a bootstrap over people, whose pictures stay together.

gptface evaluate perception --regions --model runs/faces --images synthetic --limit 200

--regions: what `edit --region` would change, by the mesh of the face and as its
--perception sees it, against the true parsing map: intersection over union, the share
of the true region that is held, and the share of the mask that lies beside it.
"""

from __future__ import annotations

import argparse
import json

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser)
    _shared.add_fold(parser, "of expressions and ages")
    _shared.add_model_of(parser, "Faceptor")
    parser.add_argument(
        "--task",
        action="append",
        metavar="NAME",
        help="a task of the model, as `gptface perceive --list` names them; "
        "repeatable; default the first of each family",
    )
    _shared.add_attributes(parser, "all with five pictures of either kind")
    parser.add_argument(
        "--regions", action="store_true", help="regions of edits, as said above"
    )
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols import perception, regions, samples
    from gptface_jax.protocols.records import open_records

    attributes = options.attributes or ()
    perception.check_attributes(attributes)
    if options.regions and (options.task or attributes):
        raise UserError(
            "--task and --attributes do not go with --regions; leave one of them out"
        )
    model = _shared.model(options, "perceive")
    spec = _shared.fold_of(options, model.size)
    tasks = options.task or model.chosen()
    if attributes and not any(task.startswith("biattr_") for task in tasks):
        raise UserError(
            f"--attributes is for tasks of the family biattr, and {', '.join(tasks)} "
            "are asked; leave it out, or name one by --task"
        )
    if not options.regions:
        perception.check_tasks(model, tasks, bool(options.samples))
    records = open_records(spec, _source.limit(options, 256))
    about = {"model": model.digest, "images": spec}
    if options.regions:
        found = regions.evaluate(model, records, not options.quiet)
        print(regions.table(found))
        return _shared.write({**about, "regions": found}, options.out)
    figures, rows = {}, [] if options.samples else None
    for task in tasks:
        if task.startswith("recog_"):
            figures[task] = perception.verification(model, task, records)
        else:
            figures[task] = perception.evaluate(
                model, task, records, not options.quiet, attributes, rows
            )
        print(f"{task}: {json.dumps(_shared.rounded(figures[task]))}", flush=True)
    if options.samples:
        samples.write(options.samples, rows)
    _shared.write({**about, "figures": figures}, options.out)
