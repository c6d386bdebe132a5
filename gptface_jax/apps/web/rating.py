"""The page on which people rate pictures: what it is told, and what it writes."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from PIL import Image

from gptface_jax.apps import rated
from gptface_jax.apps.web import hosts
from gptface_jax.core import extras, locks
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, ratings

_MOST = 10_000  # bytes of an answer
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


class RatingService:
    """Hands out questions and takes answers.

    Args:
      folder: see `rated`; answers go to its folder ratings, a file a rater.

    Raises:
      UserError: nothing to rate.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.questions = pathlib.Path(folder), rated.questions(folder)
        self._of = {q.token: q for q in self.questions}
        paths = {path for q in self.questions for path in q.pictures}
        self._pictures = {rated.digest(str(path)): path for path in paths}
        self._writing = threading.Lock()

    def listed(self, rater: str) -> list[dict[str, Any]]:
        """All questions in the order of a rater, with what they answered before."""
        rater = ratings.checked_name(rater)
        path, given = ratings.path_of(self.folder, rater), {}
        if path.exists():
            given = {ratings.question_key(row): row for row in ratings.read([path])}
        shown = []
        for question in rated.in_order(self.questions, rater):
            row = given.get(ratings.question_key(question.row), {})
            answers = {name: row[name] for name in question.asked if name in row}
            shown.append(
                {
                    "question": question.token,
                    "kind": question.row["kind"],
                    "text": question.text,
                    "pictures": [
                        f"pictures/{rated.digest(str(path))}"
                        for path in question.pictures
                    ],
                    "scales": {
                        name: ratings.SCALES[question.row["kind"]][name]
                        for name in question.asked
                    },
                    "answers": answers if len(answers) == len(question.asked) else None,
                }
            )
        return shown

    def take(self, given: Any) -> None:
        """Keeps {"rater", "question", "answers"}.

        Raises:
          UserError: something else.
        """
        if not isinstance(given, dict):
            raise UserError("an answer is a JSON object")
        question = self._of.get(str(given.get("question")))
        if question is None:
            raise UserError("no such question; load the page again")
        rater = ratings.checked_name(given.get("rater"))
        answers = ratings.checked_answers(
            question.row["kind"], given.get("answers"), question.asked
        )
        with self._writing:
            ratings.append(self.folder, {"rater": rater, **question.row, **answers})

    @functools.lru_cache(maxsize=64)  # noqa: B019  one lives as long as its server
    def picture(self, name: str) -> bytes | None:
        """A picture as a PNG without metadata, which would tell where it comes from."""
        if (path := self._pictures.get(name)) is None:
            return None
        with io.BytesIO() as data:
            Image.fromarray(image_io.decode(path)).save(data, "PNG")
            return data.getvalue()


def application(service: RatingService, host: str = "0.0.0.0"):
    """The Starlette application of a service, which listens at `host`."""
    from starlette import applications, requests, responses, routing

    page = pathlib.Path(__file__).with_name("rating.html").read_text("utf-8")

    def refused(error: UserError) -> responses.Response:
        return responses.JSONResponse({"detail": str(error)}, 400)

    def show(request: requests.Request) -> responses.Response:
        headers = {"content-security-policy": _POLICY}
        return responses.HTMLResponse(page, headers=headers)

    def questions(request: requests.Request) -> responses.Response:
        try:
            listed = service.listed(request.query_params.get("rater", ""))
        except UserError as error:
            return refused(error)
        return responses.JSONResponse(listed, headers={"cache-control": "no-store"})

    def picture(request: requests.Request) -> responses.Response:
        data = service.picture(request.path_params["name"])
        if data is None:
            return responses.PlainTextResponse("no such picture", 404)
        return responses.Response(data, media_type="image/png")

    async def answers(request: requests.Request) -> responses.Response:
        # A form of another site can send no JSON.
        if request.headers.get("content-type") != "application/json":
            return refused(UserError("an answer is sent as application/json"))
        length = request.headers.get("content-length", "")
        if not length.isdigit() or int(length) > _MOST:
            return refused(UserError(f"an answer has at most {_MOST} bytes"))
        try:
            service.take(json.loads(await request.body()))
        except UserError as error:
            return refused(error)
        except ValueError:
            return refused(UserError("an answer is a JSON object"))
        return responses.JSONResponse({"kept": True})

    return applications.Starlette(
        routes=[
            routing.Route("/", show),
            routing.Route("/questions", questions),
            routing.Route("/pictures/{name}", picture),
            routing.Route("/answers", answers, methods=["POST"]),
        ],
        middleware=[hosts.checked(host)],
    )


@contextlib.contextmanager
def serving(
    folder: str | os.PathLike, *, host: str = "127.0.0.1", port: int = 7860
) -> Iterator[tuple[str, int]]:
    """Serves the page while the context lasts; gives its address and how much to rate.

    Args:
      folder: see `rated`.
      host, port: where; only this machine reaches the default host.

    Raises:
      UserError: nothing to rate, a taken port, another server of the same folder, or
        the extra is missing.
    """
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise UserError(
            "the page needs the extra demo; " + extras.install("demo")
        ) from None
    if not 0 < port < 2**16:
        raise UserError(f"port is {port}; give a --port from 1 to 65535")
    service = RatingService(folder)
    lock = service.folder / ratings.FOLDER / "serving.lock"
    with (
        locks.held(lock, "has it rated", "open the page that is there"),
        socket.socket() as listener,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            raise UserError(
                f"port {port} of {host} cannot be had; give another --port"
            ) from None
        # Its own log_config would close the handlers of everybody else.
        config = uvicorn.Config(
            application(service, host), log_config=None, log_level="warning"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while thread.is_alive() and not server.started:
            time.sleep(0.02)
        try:
            yield f"http://{host}:{port}/", len(service.questions)
        finally:
            server.should_exit = True
            thread.join()
