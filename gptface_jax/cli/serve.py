"""Edit photos in a browser: paint a region, type a sentence, compare what comes.

gptface serve
gptface serve --port 8000 --max-mb 5
gptface serve --model runs/gptface --tokenizer runs/tokenizer
gptface serve --perception my_faceptor --face3d my_facegpt
gptface serve --rate DIR

Open the printed address; Ctrl-C ends it. Besides edits there are tabs to restore and
stitch photos, to describe them, and to edit several at once, of a Talk2Face to ask a
photo and to draw faces, of a Faceptor (--model, or --perception beside another model)
to see what a photo shows, of a FaceGPT (--model, or --face3d) to make 3D heads; what
the page does is a JSON API as well, described behind "Use via API" at its foot.

With --rate people say on a page of its own what they think of pictures: of edits how
natural they look and how well they show what is asked for, of tags whether they fit.
DIR holds the photographs in DIR/photos and a folder a system, as `gptface edit --jobs
DIR/photos --out DIR/ours` or `gptface tag --jobs` writes them. Whose picture it is is
not shown. Answers are kept in DIR/ratings, a file a rater; `gptface evaluate ratings
DIR` makes tables of them.

Only this machine reaches the page. With --host 0.0.0.0 everybody in the network does,
without a password. Uploads lie in a temporary folder that goes with the server; nothing
is sent elsewhere. The first edit compiles for up to a minute, and again for each new
guidance strength. Needs the extra `demo`.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=7860, help="default 7860")
    parser.add_argument(
        "--concurrency",
        type=int,
        default=1,
        help="requests that the model answers at the same time; others wait",
    )
    parser.add_argument(
        "--max-mb", type=float, default=20, help="megabytes of an uploaded file"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=64_000_000, help="pixels of a photo"
    )
    parser.add_argument(
        "--perception",
        metavar="NAME_OR_DIR",
        help="a Faceptor beside the model: a tab that shows what it sees, and regions "
        "of edits as it sees them",
    )
    parser.add_argument(
        "--face3d",
        metavar="NAME_OR_DIR",
        help="a FaceGPT beside the model: a tab that makes 3D heads",
    )
    parser.add_argument(
        "--rate", metavar="DIR", help="have the pictures of DIR rated, without a model"
    )
    _photo.add_model(parser)


def run(options: argparse.Namespace) -> None:
    import signal
    import sys

    # So that the temporary folder goes as it does after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if options.rate:
        return _rate(options)

    from gptface_jax.apps.web import server

    model = _photo.load(options)
    if hasattr(model, "decode"):
        model.decode = model.decode_config(_photo.decode_options(options))
    elif options.decode:
        raise UserError("--decode is for a model that edits; this one does not")
    _add(model, options.perception, "faceptor")
    _add(model, options.face3d, "facegpt")
    with server.serving(
        model,
        host=options.host,
        port=options.port,
        concurrency=options.concurrency,
        max_mb=options.max_mb,
        max_pixels=options.max_pixels,
        seed=options.seed,
    ) as address:
        print(f"model {options.model}: open {address} (Ctrl-C ends it)", flush=True)
        print("the first edit is compiled, which takes up to a minute", flush=True)
        wait()


def _add(model, source: str | None, system: str) -> None:
    """Puts a model of another system beside it, opened at once."""
    if source is None:
        return
    import gptface_jax

    other = gptface_jax.load(source, system=system)
    model.add_beside(lambda: other)


def _rate(options: argparse.Namespace) -> None:
    from gptface_jax.apps.web import rating

    with rating.serving(options.rate, host=options.host, port=options.port) as (
        address,
        count,
    ):
        print(f"{count} questions: open {address} (Ctrl-C ends it)", flush=True)
        wait()


def wait() -> None:
    """Until Ctrl-C."""
    import threading

    threading.Event().wait()
