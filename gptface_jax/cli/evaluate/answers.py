"""answers of a Talk2Face to questions whose answers are known

gptface evaluate answers --model my_model --images my_photos \\
    --split test --limit 500 --questions Smiling gender "wearing a hat" --balanced
gptface evaluate answers --model my_model --images synthetic --limit 256 --seed 77

Pictures are asked by the convention of the data set that they belong to, about all that
is known of them. Printed are the share of right answers, the mean of that share over
the true values (balanced), and the chance that a true one is told from a false one
(auc); of ages the mean error. --balanced divides the chances of answers by their means
over the pictures: otherwise what is rare is hardly ever said. --probe trains a linear
probe on the codes of a cache and asks it the same: what the codes hold in plain sight.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source
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
        "--probe",
        metavar="CACHE",
        help="token cache of training pictures; a linear probe on it stands beside",
    )
    parser.add_argument(
        "--open", action="store_true", help="let the model write its answers freely"
    )


def run(options: argparse.Namespace) -> None:
    from gptface_jax.data import shards
    from gptface_jax.protocols import answering, samples
    from gptface_jax.protocols.records import open_records

    spec, model = _source.spec(options), _shared.model(options, "ask")
    records = open_records(spec, _source.limit(options, 256))
    found = answering.ask(
        model,
        records,
        options.questions,
        convention=options.convention,
        closed=not options.open,
        balanced=options.balanced,
        progress=not options.quiet,
    )
    figures = [asked.figures() for asked in found]
    probes = []
    if options.probe:
        digest = model.vqgan.network.codes_digest
        examples = [*shards.Tokens(options.probe, tokenizer_digest=digest)]
        probes = answering.probed(model, examples, records, found)
    print(answering.table(found, figures, probes))
    if options.samples:
        samples.write(options.samples, answering.samples(found, records))
    about = {"model": model.digest, "images": spec, "balanced": options.balanced}
    named = {asked.question.name: row for asked, row in zip(found, figures)}
    if probes:
        about["probe"] = {asked.question.name: row for asked, row in zip(found, probes)}
    _shared.write({**about, "figures": named}, options.out)
