"""whether faces that a Talk2Face draws show what was asked, and how varied they are

gptface evaluate synthesis --model my_model --judge runs/judge_synthetic \\
    --convention synthetic --attributes Smiling Eyeglasses Male --count 64
gptface evaluate synthesis --model my_model --judge runs/judge_all --convention lfw \\
    --images my_photos --split test --limit 500 \\
    --features runs/judge_all

For each attribute --count faces are drawn that should have it and as many that should
not; a classifier trained apart says which have. With --images a face is drawn after a
sentence about each picture too, and compared with the pictures: Frechet distance,
precision and recall in the features of the judge run --features, and an inception-style
score of the judge's own softmax. All of them depend on --limit: compare equal numbers.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo, _source
from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_talk2face(parser, "drawn face", images=False)
    _shared.add_judge(parser)
    parser.add_argument(
        "--convention",
        required=True,
        help="data set by whose convention it is asked, as `gptface ask --list` names "
        "them, e.g. synthetic",
    )
    _shared.add_attributes(parser, "all that judge and model know")
    parser.add_argument(
        "--count", type=int, default=64, help="faces with and without each attribute"
    )
    parser.add_argument(
        "--features",
        metavar="RUN",
        help="judge, or efficientnet_lite0 (extra 'features'), in whose features "
        "Frechet distances are measured; default --judge",
    )
    parser.add_argument(
        "--sheet",
        metavar="FILE.png",
        help="four faces with and four without each attribute, as a picture",
    )
    _shared.add_generation(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.pipelines import pictures
    from gptface_jax.protocols import samples, synthesis
    from gptface_jax.protocols.feature_space import open_space
    from gptface_jax.protocols.records import open_records, pictures_of

    if options.sheet:
        pictures.check(options.sheet)
    model, judge = _shared.model(options, "synthesize"), _shared.open_judge(options)
    how = {
        "seed": options.decode_seed,
        "progress": not options.quiet,
        **_photo.decode_options(options),
    }
    names = options.attributes or synthesis.known_to_both(
        model, judge, options.convention
    )
    drawn = synthesis.draw_attributes(
        model, judge, names, options.convention, count=options.count, **how
    )
    figures = {"attributes": synthesis.carried(drawn, judge)}
    print(synthesis.table(figures["attributes"]))
    if options.sheet:
        details = {**drawn[-1].faces.details, "text": "; ".join(names)}
        pictures.save(synthesis.sheet(drawn), options.sheet, details)
    about = {"model": model.digest, "judge": options.judge, "count": options.count}
    if options.images:
        spec = _source.spec(options, model.size)
        records = open_records(spec, _source.limit(options, 256))
        after = synthesis.draw_sentences(model, judge, records, **how)
        features = open_space(options.features or options.judge).of_photos
        figures["distribution"] = synthesis.distribution(
            after, judge, features, pictures_of(records, model.size)
        )
        for name, value in figures["distribution"].items():
            print(f"{name:28s} {value:.3f}")
        about |= {"images": spec, "features": options.features or options.judge}
        drawn += after
    if options.samples:
        samples.write(options.samples, synthesis.samples(drawn, judge))
    _shared.write({**about, **figures}, options.out)
