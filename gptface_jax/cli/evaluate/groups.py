"""whether answers and edits differ with skin tone, sex and age

gptface evaluate groups --model demo --limit 64 --seed 77
gptface evaluate groups --model demo --judge runs/judge --limit 32 --seed 77 \\
    --attributes Smiling Eyeglasses Wearing_Hat --audit 64 --out groups.json

Each of --limit drawn people is drawn light, medium and dark, as a woman and a man,
young and older, with everything else as it was. The model reads --attributes of all of
them (a GPTFace by which of two opposite sentences fits better, a Talk2Face by
answering): accuracy, true and false positives and calibration by group, the gap between
the best group and the worst with an interval over people, and how often something else
is said of a person of whom only the group has changed. With --judge edits are made and
judged by group, too; --audit N draws so many faces after "a person" and tells who is
shown. Drawn people show what a model does with tone, not with anybody's photograph.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_limit(parser, "drawn people, each twelve times; default 32")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn people")
    _shared.add_model(parser)
    _shared.add_judge(parser, required=False)
    _shared.add_attributes(parser, "Smiling, Eyeglasses, Wearing_Hat, Male, Young")
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        help="candidates of an edit, of which the best match is kept; default 1, while "
        "`gptface edit` draws several",
    )
    parser.add_argument(
        "--audit",
        type=int,
        default=0,
        metavar="N",
        help="draw N faces after 'a person', of whom --judge and cheeks tell",
    )
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    import gptface_jax
    from gptface_jax.protocols import groups

    if options.audit and not options.judge:
        raise UserError("--audit needs --judge, which says who is shown")
    if options.samples > 1 and not options.judge:
        raise UserError("--samples is of edits, which --judge judges; give both")
    judge = _shared.open_judge(options) if options.judge else None
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    attributes = options.attributes or groups.READ
    count = _source.limit(options, 32)
    found = {}
    for name, read, size in _readers(model):
        people = groups.drawn(count, options.seed, size)
        found[name] = groups.readings(read, people, attributes)
        print(f"{name}\n\n{groups.table(found[name])}\n")
    if not found:
        raise UserError(f"'{options.model}' neither matches nor answers")
    if judge:
        found |= _edited(options, model, judge, count)
    about = {"model": model.digest, "people": count, "seed": options.seed}
    about |= {"samples": options.samples} if judge else {}
    _shared.write({**about, "attributes": attributes, "figures": found}, options.out)


def _readers(model):
    """(what it does, reader, size of pictures) of all that a model can."""
    from gptface_jax.protocols import groups

    if hasattr(model, "editor"):
        yield "matching", groups.by_matching(model), model.editor.size
    if hasattr(model, "learnt"):
        yield "answers", groups.by_asking(model), model.size


def _edited(options, model, judge, count: int):
    import numpy as np

    from gptface_jax.data import regions
    from gptface_jax.protocols import editors, groups

    if not hasattr(model, "editor"):
        raise UserError(f"--judge judges edits, and '{options.model}' edits nothing")
    asked = options.attributes or groups.READ
    named = [name for name in asked if name in regions.OF_ATTRIBUTE]
    judge.check(named)
    size = model.editor.size
    edit = editors.by_model(
        model, model.decode_config({}), options.seed, num_candidates=options.samples
    )
    found = {
        "edits": groups.edited(
            edit,
            judge,
            groups.drawn(count, options.seed, size),
            named,
            size,
            progress=not options.quiet,
        )
    }
    print(f"edits\n\n{groups.group_table(found['edits'])}\n")
    if options.audit:
        pictures = model.sample(options.audit, groups.NEUTRAL, seed=options.seed)
        found["drawn after a neutral text"] = groups.audited(
            np.stack([np.asarray(p) for p in pictures]), judge, model.frame
        )
        print(_shared.rounded(found["drawn after a neutral text"]))
    return found
