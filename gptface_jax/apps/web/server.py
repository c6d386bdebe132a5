"""Serving the page: its address, its limits and its files, which go when it ends."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping

from PIL import Image

from gptface_jax.apps import api
from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io

_WAITING = 32  # requests in the queue; more are refused
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
_UPLOAD = "/gradio_api/upload"
_TOGETHER = 16  # files of the largest size in one upload
_SESSIONS = 64  # whose photos are kept; the oldest go first


class Guard:
    """Refuses links, which gradio would fetch, and bodies larger than an upload.

    Uploads, the only bodies of several files, are counted file by file by gradio too.
    """

    def __init__(self, app, most: int):
        self.app, self.most = app, most

    async def __call__(self, scope, receive, send) -> None:
        from starlette.responses import JSONResponse

        refused = self._refused(scope) if scope["type"] == "http" else None
        if refused:
            status, said = refused
            await JSONResponse({"detail": said}, status)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refused(self, scope) -> tuple[int, str] | None:
        if "://" in scope["path"]:
            return 403, "no links"
        if scope["method"] == "POST":
            most = self.most * (_TOGETHER if scope["path"] == _UPLOAD else 1)
            length = dict(scope["headers"]).get(b"content-length", b"")
            if not length.isdigit() or int(length) > most:
                return 413, f"at most {most:,} bytes, of a length that is stated"
        return None


def sweep(folder: str | os.PathLike, keep: float) -> None:
    """Removes what was written into a folder more than `keep` seconds ago."""
    before = time.time() - keep
    for path, folders, names in os.walk(folder, topdown=False):
        for name, remove in (
            *((name, os.unlink) for name in names),
            *((name, os.rmdir) for name in folders),
        ):
            entry = os.path.join(path, name)
            with contextlib.suppress(OSError):  # one that is not empty stays
                if os.lstat(entry).st_mtime < before:
                    remove(entry)


@contextlib.contextmanager
def _swept(folder: str, keep: float) -> Iterator[None]:
    """Sweeps a folder while the context lasts.

    gradio's own way (`delete_cache`) ends for good at "Set changed size during
    iteration" when an upload comes at the same moment, and knows no files of ours.
    """
    done = threading.Event()

    def work() -> None:
        while not done.wait(keep / 60):
            sweep(folder, keep * 59 / 60)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def serving(
    model: api.Model,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    concurrency: int = 1,
    max_mb: float = 20,
    max_pixels: int = image_io.MAX_PIXELS,
    seed: int = 0,
    keep: float = 3600,
) -> Iterator[str]:
    """Serves the page while the context lasts; gives its address.

    Nothing is sent or asked elsewhere; environment variables say so to gradio. Files
    lie in a folder of their own and go after `keep`, all of them at the end.

    Args:
      model: answers every request.
      host, port: where; only this machine reaches the default host.
      concurrency: requests that the model answers at the same time.
      max_mb: megabytes of an uploaded file.
      max_pixels: of a photo.
      seed: where the page begins.
      keep: seconds for which files are kept.

    Raises:
      UserError: an option that cannot be used, a taken port, or gradio is missing.
    """
    for name, value in (
        ("concurrency", concurrency), ("max_mb", max_mb), ("keep", keep)
    ):  # fmt: skip
        if value <= 0:
            raise UserError(f"{name} is {value}; use a number above 0")
    if not 0 < port < 2**16:
        raise UserError(f"port is {port}; give a --port from 1 to 65535")
    if not 0 < max_pixels <= image_io.MAX_PIXELS:
        raise UserError(f"max_pixels is {max_pixels}; use 1 to {image_io.MAX_PIXELS}")
    with (
        tempfile.TemporaryDirectory(prefix="gptface-serve-") as folder,
        _process({**OFFLINE, "GRADIO_TEMP_DIR": folder}, max_pixels),
    ):
        page = _page(model, seed, max_pixels, concurrency, folder)
        page.queue(max_size=_WAITING, api_open=False)  # nothing passes the queue by
        _launch(page, folder, host, port, int(max_mb * 2**20))
        try:
            with _swept(folder, keep):
                yield page.local_url
        finally:
            page.close(verbose=False)


@contextlib.contextmanager
def _process(variables: Mapping[str, str], max_pixels: int) -> Iterator[None]:
    """Sets what gradio and Pillow read of the process, and puts it back at the end."""
    before = {name: os.environ.get(name) for name in variables}
    pixels = Image.MAX_IMAGE_PIXELS
    os.environ |= variables
    Image.MAX_IMAGE_PIXELS = max_pixels // 2  # Pillow refuses above twice this
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = pixels
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _page(model, seed, max_pixels, concurrency, folder):
    try:
        from gptface_jax.apps.web import page, service
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the page needs gradio; " + extras.install("demo")) from None
    return page.build(service.Service(model, seed, max_pixels, concurrency, folder))


def _launch(page, folder, host, port, most) -> None:
    from starlette.middleware import Middleware

    from gptface_jax.apps.web import hosts, refusals
    from gptface_jax.apps.web.page import CSS

    try:
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=most,
            allowed_paths=[folder],
            state_session_capacity=_SESSIONS,
            app_kwargs={
                "middleware": [hosts.checked(host), Middleware(Guard, most=most)],
                "exception_handlers": refusals.HANDLERS,
            },
            css=CSS,
            footer_links=["api"],
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
        )
    except OSError:
        raise UserError(
            f"port {port} of {host} cannot be had; give another --port"
        ) from None
