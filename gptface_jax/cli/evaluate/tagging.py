"""tags that a model writes against tags that are looked up

Every picture's truth gives words the grades 0, 1 and 2. Four systems rank the same
vocabulary, all words that are true of a training picture: the model writes lists of
masked tags (generative), its contrastive projections compare picture and word
(retrieval), the words that are most often true come first (frequency), or chance
decides (random). Of each 30 results count.

gptface evaluate tagging --model demo --images synthetic --limit 100
gptface evaluate tagging --model demo --images my_photos \\
    --split test --limit 100 --out tagging.json --sheet tagging.png
gptface evaluate tagging --model runs/gptface64 --retrieval runs/dual \\
    --tokenizer runs/vqgan64 --images synthetic --limit 100

Printed are NDCG at 5, 10 and 20 with gain 2^grade - 1 and with linear gain, and mean
average precision with grades 1 and 2 relevant, in percent, with the standard error over
pictures. The ideal is the best ranking of what all systems found for a picture. Where
the projections were trained only at the start of a run, and the layers below them went
on learning, they are out of date; --retrieval names a model trained to retrieve.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo, _source
from gptface_jax.cli.evaluate import _shared
from gptface_jax.core import files
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser, 100)
    _shared.add_model(parser)
    parser.add_argument(
        "--retrieval", help="model that retrieves, instead of --model's own projections"
    )
    parser.add_argument(
        "--words-from",
        type=int,
        default=2000,
        metavar="N",
        help="training pictures whose labels give the vocabulary and its frequencies",
    )
    parser.add_argument(
        "--decode",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any option of DecodeConfig for the written tags; repeatable",
    )
    parser.add_argument("--decode-seed", type=int, default=0, help="random seed")
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="a few photos and their tags, as a picture"
    )
    _shared.add_out(parser, "figures and rankings as JSON")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.pipelines import pictures
    from gptface_jax.protocols import records as held_out
    from gptface_jax.protocols import tagging

    if options.words_from < 1:
        raise UserError(f"--words-from is {options.words_from}; use 1 or more")
    count = _source.limit(options, 100)
    model = _shared.model(options, "tag")
    spec = _source.spec(options, model.size)
    known = {**spec, "limit": options.words_from}
    if spec["kind"] == "synthetic":
        spec["count"] = count
        # Other faces of the same collection.
        known = {**spec, "count": options.words_from, "offset": -(-count // 4) * 4}
    else:
        known["split"] = "train"
    records = held_out.open_records(spec, count)
    words = tagging.vocabulary(
        model.editor.text_tokenizer, held_out.open_records(known, options.words_from)
    )
    retrieval = None
    if options.retrieval:
        retrieval = _shared.model(options, "tag", options.retrieval)
    rankings = tagging.rank(
        model,
        records,
        words,
        retrieval=retrieval,
        seed=options.decode_seed,
        progress=not options.quiet,
        **_photo.decode_options(options),
    )
    truth = tagging.grades_of(records)
    found = tagging.figures(rankings, truth)
    print(f"{len(records)} pictures, {len(words)} words")
    print(tagging.table(found))
    if "retrieval" not in rankings:
        print(
            "no retrieval: the model has no contrastive projections; train a dual "
            "encoder and give it as --retrieval"
        )
    if options.out:
        about = {"model": model.digest, "images": spec, "vocabulary": words}
        if retrieval:
            about["retrieval"] = retrieval.digest
        report = {**about, "figures": found, "rankings": rankings, "truth": truth}
        files.write_text(options.out, files.json_text(report, 1))
    if options.sheet:
        pictures.save(tagging.sheet(records, rankings, truth), options.sheet)
