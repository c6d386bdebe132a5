"""The page of `gptface serve` in headless Chromium, on a wide window and a phone's."""

import json
import os
import pathlib
import shutil
import socket
import zipfile

import numpy as np
import page_models
import pytest
import two_faces
from PIL import Image

import gptface_jax
from gptface_jax.apps.web import faces, server
from gptface_jax.data import image as images
from gptface_jax.data import synthetic
from gptface_jax.pipelines import provenance

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
def model(tiny):
    model = gptface_jax.load(tiny / "model")
    model.decode = model.decode_config({"k": 32, "guidance": "none"})
    model.frame = np.array(two_faces.FRAME)
    sees = page_models.Sees()
    sees.predicts_parsing = False  # regions are the mesh's
    for other in (sees, page_models.Solid()):
        model.add_beside(lambda other=other: other)
    return model


@pytest.fixture(scope="module")
def address(model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patched:
        for name in (*server.OFFLINE, "GRADIO_TEMP_DIR"):
            patched.setenv(name, "")
        with server.serving(model, port=port) as address:
            yield address


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "me.png"
    Image.fromarray(synthetic.SyntheticFaces(size=96, count=1, seed=3)[0].image).save(
        path
    )
    return path


@pytest.fixture(scope="module")
def couple(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "couple.png"
    two_faces.photo().save(path)
    return path


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def page(request, browser, address):
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(180 * _SECONDS)
    asked, complaints = [], []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("console", lambda said: complaints.append((said.type, said.text)))
    page.goto(address)
    page.wait_for_selector("#photo input[type=file]", state="attached")
    yield page
    here = (address, "data:", "blob:")
    assert [url for url in asked if not url.startswith(here)] == []
    # The viewer of meshes says that it does without WebGPU, and goes on.
    errors = [text for kind, text in complaints if kind == "error"]
    assert [text for text in errors if "WebGPU" not in text] == []
    page.close()


def upload(page, where, path):
    """Uploads, and waits until the page knows the file."""
    choose = f"{where} input[type=file]", path
    answered(page, lambda: page.set_input_files(*choose))


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
        # Chromium may never confirm a click of the mouse that starts a download.
        page.locator(f"{where} a[download]").nth(number).dispatch_event("click")
    return pathlib.Path(event.value.path())


def answered(page, click):
    """Clicks, and waits for the server's answer; the page may show it later."""

    def of_an_answer(sent):
        ended.extend(["/queue/data"] if "/queue/data" in sent.url else [])

    ended, events = [], ("requestfinished", "requestfailed")  # the page hangs up
    for event in events:
        page.on(event, of_an_answer)
    click()
    for _ in range(1800):
        if ended:
            break
        page.wait_for_timeout(_SECONDS / 10)
    for event in events:
        page.remove_listener(event, of_an_answer)
    assert ended, "no answer in three minutes"


def choose_region(page, name):
    if not page.locator("#region input").is_visible():
        page.get_by_role("button", name="Mask: a region").click()
    page.click("#region input")
    answered(page, page.get_by_role("option", name=name, exact=True).click)


def renewed(page, where, button):
    """Clicks, and waits for other files to download."""
    links = page.locator(f"{where} a[download]")
    before = links.first.get_attribute("href") if links.count() else ""
    page.click(button)
    page.wait_for_function(
        "([where, old]) => ![null, old].includes(document.querySelector("
        "`${where} a[download]`)?.getAttribute('href') ?? null)",
        arg=[where, before],
    )


def mask_of(page):
    """What is marked, as the page hands it out."""
    page.wait_for_timeout(2 * _SECONDS)  # the canvas shows what it was given
    renewed(page, "#kept", "#keep")
    return np.asarray(Image.open(downloaded(page, "#kept")).convert("L")) == 255


def edited(page):
    """Edits, and gives the sidecar of the best variant."""
    renewed(page, "#files", "#edit")
    return json.loads(downloaded(page, "#files", 2).read_text())


def test_a_photo_is_painted_edited_and_downloaded(page, face, tmp_path):
    upload(page, "#photo", face)
    painted(page)
    page.fill("#text textarea, #text input", "a man")
    sidecar = edited(page)
    assert page.locator("#variants img").count() == 4 and "chain" not in sidecar
    with Image.open(downloaded(page, "#files")) as picture:
        assert picture.text["Comment"] == provenance.MARKS[provenance.EDITED]
        after = np.asarray(picture)
    changed = (after != np.asarray(Image.open(face))).any(-1)
    rows = np.flatnonzero(changed.any(1))
    # Within the brush, whose radius is 24.
    assert changed.any() and 20 < rows.min() and rows.max() < 76
    page.locator("#steps img").wait_for()
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    # Nothing sticks out to the right.
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")


def test_attributes_are_turned_without_a_sentence_and_a_mask(page, face):
    upload(page, "#photo", face)
    page.click("#edit")
    page.wait_for_selector("text=or turn attributes up or down")
    page.get_by_role("button", name="Attributes: less or more").click()
    sliders = page.locator("#attributes input[type=number]")
    for number, value in ((0, "3"), (2, "-2")):
        sliders.nth(number).fill(value)
        sliders.nth(number).press("Tab")
    sidecar = edited(page)
    assert sidecar["strength"] == {"Smiling": 3, "Wearing_Hat": -2}
    assert (sidecar["text"], sidecar["mask"]["region"]) == ("", "mouth+hat")
    assert not page.locator("#chart").is_visible()
    for i in range(sliders.count()):  # whole within the page
        box = page.locator("#attributes input[type=range]").nth(i).bounding_box()
        assert 0 < box["x"] and box["x"] + box["width"] < page.viewport_size["width"]


def test_edits_are_chained_and_undone(page, face):
    upload(page, "#photo", face)
    page.fill("#text textarea, #text input", "a man")
    for number, region in enumerate(("mouth", "eyes")):
        choose_region(page, region)
        assert len(edited(page).get("chain", ())) == number
        answered(page, page.get_by_role("button", name="Use this result").click)
    for _ in range(2):
        answered(page, page.locator("#undo").click)
    choose_region(page, "hair")
    assert "chain" not in edited(page)
    page.click("#undo")
    page.wait_for_selector("text=there is nothing to undo")


def click_face(page, point, where="#faces"):
    """Clicks a point of a photo 500 wide, 250 high, that is shown as a whole."""
    shown = page.locator(f"{where} img").first
    shown.scroll_into_view_if_needed()
    box = shown.bounding_box()
    scale = min(box["width"] / 500, box["height"] / 250)
    edges = box["width"] - scale * 500, box["height"] - scale * 250
    x, y = (edge / 2 + scale * at for edge, at in zip(edges, point))
    answered(page, lambda: shown.click(position={"x": x, "y": y}))


def test_one_of_two_faces_is_clicked(page, model, couple):
    def mask(at):
        seen = faces.opened(model, Image.open(couple)).at(at)
        return faces.region(model, seen, "mouth")[0]

    left, right = (100, 120), (370, 60)
    upload(page, "#photo", couple)
    page.locator("#faces img").wait_for()
    choose_region(page, "mouth")
    larger = mask_of(page)
    np.testing.assert_array_equal(larger, mask(right))
    click_face(page, left)
    np.testing.assert_array_equal(mask_of(page), mask(left))
    assert not (larger & mask(left)).any()
    page.fill("#text textarea, #text input", "a man")
    sidecar = edited(page)
    assert "upright" in sidecar and sidecar["crop"][2] < 250
    # The next photo's face is the same one.
    answered(page, page.get_by_role("button", name="Use this result").click)
    choose_region(page, "mouth")
    assert not mask_of(page)[:, 250:].any()
    answered(page, page.locator("#undo").click)
    # What is painted stays where it is, and is edited whichever face is chosen.
    painted(page)
    marked = mask_of(page)
    click_face(page, right)
    np.testing.assert_array_equal(mask_of(page), marked)
    edited(page)
    page.get_by_role("button", name="Options").click()
    answered(page, page.locator("#align input").click)
    page.locator("#faces").wait_for(state="detached")
    choose_region(page, "eyes")  # of the middle square
    assert edited(page)["crop"] == [125, 0, 375, 250]


def test_the_photo_says_which_face_is_described(page, couple):
    open_tab(page, "Describe")
    upload(page, "#described", couple)
    where = ".below-label:visible"
    page.locator(f"{where} img").wait_for()
    tables = []
    for point in ((370, 60), (100, 120)):
        click_face(page, point, where)
        answered(page, page.locator("#tag").click)
        page.wait_for_timeout(_SECONDS)
        tables.append(page.locator("#table").inner_text())
    assert tables[0] != tables[1]


def test_masks_come_from_regions_and_files_and_are_corrected(
    page, model, face, tmp_path
):
    upload(page, "#photo", face)
    choose_region(page, "mouth")
    seen = faces.opened(model, Image.open(face))
    wanted, _ = faces.region(model, seen, "mouth")
    np.testing.assert_array_equal(mask_of(page), wanted)
    mask = np.zeros((96, 96, 4), np.uint8)
    mask[40:56, 2:94, 3] = 255  # wider than the line that is drawn
    Image.fromarray(mask).save(tmp_path / "mask.png")
    upload(page, "#mask", tmp_path / "mask.png")
    found = mask_of(page)
    np.testing.assert_array_equal(found, mask[..., 3] == 255)
    page.get_by_role("button", name="Color", exact=True).click()
    page.locator("#editor menu.swatch button").nth(1).click()  # blue
    page.get_by_role("button", name="Brush", exact=True).click()
    painted(page)
    left = mask_of(page)
    assert 0 < left.sum() < found.sum() and not (left & ~found).any()
    page.get_by_role("button", name="Erase", exact=True).click()
    painted(page)
    np.testing.assert_array_equal(mask_of(page), found)


def test_a_bad_file_is_told(page, tmp_path):
    words = tmp_path / "words.png"
    words.write_text("no picture")
    upload(page, "#photo", words)
    page.wait_for_selector("text=is not a picture that can be read")
    page.click("#edit")
    page.wait_for_selector("text=there is no photo yet")


def open_tab(page, name):
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.first.is_visible():  # on a phone
        page.locator(".overflow-menu button").first.click()
        tab = page.locator(".overflow-dropdown button", has_text=name)
    tab.first.click()


def test_what_a_photo_shows(page, face):
    open_tab(page, "See")
    upload(page, "#seen-photo", face)
    answered(page, page.locator("#look").click)
    page.locator("#parts button, #parts .legend-item", has_text="hair").first.wait_for()
    assert "happiness" in page.locator("#said").inner_text()
    assert downloaded(page, "#seen-files").read_bytes()[:4] == b"\x89PNG"
    said = json.loads(downloaded(page, "#seen-files", 1).read_text())
    assert said["faces"][0]["expression"] == "happiness"


def test_a_head_is_made_and_turned(page):
    open_tab(page, "3D")
    page.fill("#solid-text textarea, #solid-text input", "a happy person")
    answered(page, page.locator("#solid").click)
    shown = page.locator("#head img")
    shown.wait_for()
    before = shown.get_attribute("src")
    yaw = page.locator("#pose input[type=number]").first
    assert yaw.input_value() == "7"
    yaw.fill("40")
    answered(page, lambda: yaw.press("Tab"))
    page.wait_for_function(
        "old => document.querySelector('#head img').getAttribute('src') != old",
        arg=before,
    )
    renewed(page, "#solid-files", "#solid-keep")
    said = json.loads(downloaded(page, "#solid-files", 2).read_text())
    assert 39 < said["angles"]["yaw"] < 41
    assert downloaded(page, "#solid-files").read_bytes()[:4] == b"glTF"
    page.locator("#glb canvas").wait_for()
    # The head stays in sight beside all of its sliders.
    page.locator("#expression input[type=number]").last.scroll_into_view_if_needed()
    box = shown.bounding_box()
    assert 0 <= box["y"] < page.viewport_size["height"] - box["height"]


def test_several_photos_come_back_as_a_zip(page, face, tmp_path):
    words = tmp_path / "words.png"
    words.write_text("no picture")
    open_tab(page, "Several photos")
    # Nothing is asked of the server but to take them.
    page.set_input_files("#photos input[type=file]", [face, words])
    page.fill("#text-of-all textarea, #text-of-all input", "a man")
    page.click("#all")
    page.locator("#zip a[download]").wait_for()
    with zipfile.ZipFile(downloaded(page, "#zip")) as archive:
        report = json.loads(archive.read("report.json"))
    assert [line["file"] for line in report] == ["me.png", "words.png"]
    page.locator("#report >> text=not a picture").last.wait_for()


def test_marks_are_inverted_grown_and_shrunk(page, face):
    def press(name):
        answered(page, page.get_by_role("button", name=name, exact=True).click)
        return mask_of(page)

    upload(page, "#photo", face)
    choose_region(page, "mouth")
    mask = mask_of(page)
    wider = press("Grow")
    np.testing.assert_array_equal(wider, images.grown(mask, 8))
    np.testing.assert_array_equal(press("Invert"), ~wider)
    page.get_by_label("Pixels of the photo").fill("3")
    page.keyboard.press("Tab")
    np.testing.assert_array_equal(press("Grow"), images.grown(~wider, 3))
    # The region's name no longer says what is marked.
    assert page.locator("#region input").input_value() == ""
    np.testing.assert_array_equal(press("Shrink"), ~wider)
