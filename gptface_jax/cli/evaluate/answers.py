"""answers of a Talk2Face to questions whose answers are known

gptface evaluate answers --model my_model --images my_photos \\
    --split test --limit 500 --questions Smiling gender "wearing a hat" --balanced
gptface evaluate answers --model my_model --images synthetic --limit 256 --seed 77

Pictures are asked by the convention of the data set that they belong to, about all that
is known of them. Printed are the share of right answers, the mean of that share over
the true values (balanced), and the chance that a true one is told from a false one
(auc); of ages the mean error. Beside them stands the majority: the most frequent
answer, or the median age, given to all, which is right of 1 / answers in the balanced
mean. It is the training's with --training, whose median also stands in for ages that
are no answer; else that of the pictures themselves. Ages that `gptface prepare --ages`
guessed are counted: they are no truth.

--balanced divides the chances of answers by their means over the pictures, --prior by
those of a grey picture: otherwise what is rare is hardly ever said. Answers that the
model writes itself (--open) are not weighed. --probe trains a linear probe on the codes
of a cache and asks it the same: what the codes hold in plain sight.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _answers, _source
from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_talk2face(parser, "answer")
    parser.add_argument(
        "--questions",
        nargs="+",
        default=[],
        help="as `gptface ask --list` names them; default all that it knows",
    )
    parser.add_argument(
        "--convention",
        default="",
        help="data set by whose convention it is asked; default the pictures' own",
    )
    parser.add_argument(
        "--balanced",
        action="store_true",
        help="answers by how much likelier than usual they are, as said above",
    )
    parser.add_argument(
        "--training",
        metavar="CACHE",
        help="token cache of training pictures, whose majority and median are meant; "
        "default that of --probe",
    )
    parser.add_argument(
        "--probe",
        metavar="CACHE",
        help="token cache of training pictures; a linear probe on it stands beside",
    )
    _answers.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    import numpy as np

    from gptface_jax.protocols import answering, samples
    from gptface_jax.protocols.records import open_records

    how = _answers.options(options)
    model = _shared.model(options, "ask")
    spec = _source.spec(options, model.size)
    records = open_records(spec, _source.limit(options, 256))
    found = answering.ask(
        model,
        records,
        options.questions,
        convention=options.convention,
        balanced=options.balanced,
        progress=not options.quiet,
        **how,
    )
    usual = [None] * len(found)
    if training := options.training or options.probe:
        examples = _cached(training, model)
        usual = [answering.usual(asked.question, examples) for asked in found]
    figures = [asked.figures(value) for asked, value in zip(found, usual)]
    majority = [asked.majority(value) for asked, value in zip(found, usual)]
    probes = []
    if options.probe:
        examples = _cached(options.probe, model)
        probes = answering.probed(model, examples, records, found)
    print(answering.table(found, figures, majority, probes))
    if any(np.isnan(row.get("mae_with_median", 0)) for row in figures):
        print(
            "note: ages that are no answer are left out of the mean; give --training, "
            "whose median stands in for them"
        )
    guessed = answering.guessed_ages(found, records)
    for estimator, count in guessed.items():
        print(f"note: {count} ages are guesses of {estimator}, no truth")
    if options.samples:
        samples.write(options.samples, answering.samples(found, records))
    about = {"model": model.digest, "images": spec, "balanced": options.balanced, **how}
    about["training"] = training
    if guessed:
        about["guessed_ages"] = guessed
    for name, rows in (("majority", majority), ("probe", probes), ("figures", figures)):
        if rows:
            about[name] = {a.question.name: row for a, row in zip(found, rows)}
    _shared.write(about, options.out)


def _cached(path: str, model) -> list:
    """The records of a token cache that the model's tokenizer made."""
    from gptface_jax.data import shards

    return [*shards.Tokens(path, tokenizer_digest=model.vqgan.network.codes_digest)]
