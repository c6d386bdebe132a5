"""The page of `gptface serve` in headless Chromium, on a wide window and a phone's."""

import os
import pathlib
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

import gptface_jax
from gptface_jax.apps import pictures
from gptface_jax.apps.web import server
from gptface_jax.data import synthetic

pytest.importorskip("gradio")
api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.slow
WIDE, PHONE = (1400, 900), (390, 844)
_SECONDS = 1000  # playwright counts in milliseconds


def chromium() -> str | None:
    """Where the browser is, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    given = os.environ.get("GPTFACE_CHROMIUM")
    return given or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    if path is None:
        pytest.skip("no chromium on PATH and none named by GPTFACE_CHROMIUM")
    with api.sync_playwright() as playwright:
        # As root, which containers often are, it starts without a sandbox only.
        started = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tiny):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patched:
        for name in (*server.OFFLINE, "GRADIO_TEMP_DIR"):
            patched.setenv(name, "")
        model = gptface_jax.load(tiny / "model")
        model.decode = model.decode_config({"k": 16})
        with server.serving(model, port=port) as address:
            yield address


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "me.png"
    Image.fromarray(synthetic.SyntheticFaces(size=96, count=1, seed=3)[0].image).save(
        path
    )
    return path


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def page(request, browser, address):
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(60 * _SECONDS)
    asked, complaints = [], []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("console", lambda said: complaints.append((said.type, said.text)))
    page.goto(address)
    page.wait_for_selector("#photo input[type=file]", state="attached")
    yield page
    here = (address, "data:", "blob:")
    assert [url for url in asked if not url.startswith(here)] == []
    assert [text for kind, text in complaints if kind == "error"] == []
    page.close()


def upload(page, where, path):
    page.set_input_files(f"{where} input[type=file]", path)


def painted(page):
    """Draws a line across the canvas."""
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.wait_for_timeout(2 * _SECONDS)  # it fits the photo to itself
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    for i in range(0, 81, 8):
        page.mouse.move(x - 40 + i, y)
    page.mouse.up()
    page.wait_for_timeout(_SECONDS)


def downloaded(page, where, number=0):
    with page.expect_download() as event:
        page.locator(f"{where} a[download]").nth(number).click()
    return pathlib.Path(event.value.path())


def fits(page):
    """Nothing sticks out to the right."""
    wide, there = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    return wide <= there


def test_a_photo_is_painted_edited_and_downloaded(page, face, tmp_path):
    upload(page, "#photo", face)
    painted(page)
    page.fill("#text textarea", "a man")
    page.click("#edit")
    page.wait_for_selector("#variants img")
    page.wait_for_selector("#files a[download]")
    assert page.locator("#variants img").count() == 4
    assert fits(page)
    with Image.open(downloaded(page, "#files")) as picture:
        assert picture.text["Comment"] == pictures.MARK
        after = np.asarray(picture)
    changed = (after != np.asarray(Image.open(face))).any(-1)
    rows = np.flatnonzero(changed.any(1))
    assert changed.any() and 30 < rows.min() and rows.max() < 66
    # On from there, and back.
    page.get_by_role("button", name="Use this result").click()
    painted(page)
    page.click("#edit")
    page.wait_for_timeout(_SECONDS)
    page.wait_for_function("!document.querySelector('#variants .wrap.generating')")
    page.screenshot(path=tmp_path / "page.png", full_page=True)


def test_a_bad_file_is_told(page, tmp_path):
    words = tmp_path / "words.png"
    words.write_text("no picture")
    upload(page, "#photo", words)
    page.wait_for_selector("text=is not a picture that can be read")
    page.click("#edit")
    page.wait_for_selector("text=nothing is marked")
