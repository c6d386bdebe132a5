"""Was this picture edited here? Its metadata, and the token watermark.

gptface detect --image edited.png
gptface detect --image copy.jpg --box 40,60,90,100 --key 8124731905

The picture is encoded again and the codes of the key's half are counted where it was
edited: --mask, --box or --region, else what its sidecar or XMP says, else everywhere.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _photo.add_selection(parser, what="where it was edited", every=False)
    parser.add_argument("--model", default="demo", help="the model that edited")
    parser.add_argument(
        "--tokenizer", help="VQGAN training run, where --model is a training run"
    )
    parser.add_argument("--key", type=int, default=0, help="the watermark's key")
    parser.add_argument(
        "--seed",
        type=int,
        help="of a --region that was chosen by chance; default what the picture's "
        "sidecar or XMP says, else 0",
    )


def run(options: argparse.Namespace) -> None:
    import gptface_jax
    from gptface_jax.pipelines import watermark_detection

    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    where = _photo.selection(options, every=False)
    report = watermark_detection.detect(
        model, options.image, options.key, seed=options.seed, **where
    )
    print(f"XMP: {report.source_type or 'no mark of a digital source type'}")
    if report.details is None:
        print("details: neither a sidecar nor our XMP")
    else:
        names = ("edited", "software", "date", "model", "text", "seed", "mask")
        said = {name: report.details.get(name) for name in names}
        print(f"details ({report.details_in}): {said}")
    keys = {
        None: "this key",
        True: "this key, named there,",
        False: "this, another, key",
    }
    count, key = report.count, keys[report.same_key]
    verdict = "found" if count.found else "not found"
    print(
        f"watermark: of {count.tokens} codes {report.where} {count.green} are green "
        f"for {key}: z = {count.z:.2f}, p = {count.p_value:.2g}; {verdict} at a "
        f"false-positive rate of {watermark_detection.FALSE_POSITIVES}"
    )
    print(_verdict(report))


def _verdict(report) -> str:
    """What the findings come to, in a line."""
    said = "its watermark" if report.count.found else ""
    if report.details is not None:
        said = " and ".join(filter(None, (f"its {report.details_in}", said)))
    if said:
        return f"edited here: yes, by {said}"
    if report.source_type:
        return "edited here: not known; its XMP names a generative model"
    return (
        "edited here: no sign of it; that proves little, for metadata get lost and "
        "only edits with --decode watermark=... carry a watermark"
    )
