"""Makes the pictures of README and docs, from drawn faces and the bundled model.

.uv/bin/uv run --with matplotlib python docs/make_pictures.py
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import tempfile

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

import gptface_jax
from gptface_jax.apps import quickstart
from gptface_jax.data import image_io, rendering, synthetic
from gptface_jax.data.facemodel import open_model
from gptface_jax.data.rendered import RenderedFaces
from gptface_jax.pipelines import networks, pictures, views
from gptface_jax.pipelines.faces3d import Head3D
from gptface_jax.protocols import reconstruction
from gptface_jax.systems.vqgan.objective import AdversaryConfig

HEAD = (142, 22, 302, 182)  # of the astronaut
IMAGES = pathlib.Path(__file__).parent / "images"
LOGS = pathlib.Path(__file__).parent / "logs"


def faces() -> None:
    """A hundred drawn faces, and one face with one thing changed at a time."""
    source = synthetic.SyntheticFaces(size=64, count=400, seed=3)
    rows = [
        np.concatenate([source[4 * (10 * r + c)].image for c in range(10)], 1)
        for r in range(10)
    ]
    Image.fromarray(np.concatenate(rows)).save(IMAGES / "synthetic.png")

    face = synthetic.sample_factors(2026, 12)
    changes = ("Smiling", "Eyeglasses", "Wearing_Hat", "Blond_Hair", "No_Beard")
    cells = [synthetic.render(face, 192).image]
    known = synthetic.labels(face)
    for name in changes:
        other = synthetic.set_attribute(face, name, not known[name] > 0.5)
        cells.append(synthetic.render(other, 192).image)
    Image.fromarray(np.concatenate(cells, 1)).save(IMAGES / "counterfactuals.png")


def rendered() -> None:
    """Rendered heads, and what is known of each: points, classes, depth, its sides."""
    source = RenderedFaces(size=128, count=30, seed=11)
    records = [source[i] for i in range(16)]
    rows = [[r.image for r in records[start : start + 8]] for start in (0, 8)]
    shown = records[:8]
    rows.append([_with_points(r) for r in shown])
    colours = np.random.default_rng(4).integers(40, 255, (19, 3)).astype(np.uint8)
    colours[0] = 0
    rows.append([colours[r.parsing] for r in shown])
    depths = [np.nan_to_num(r.face3d["depth"], nan=-110) + 110 for r in shown]
    rows.append([np.uint8(np.clip(d, 0, 255))[..., None].repeat(3, 2) for d in depths])
    picture = np.concatenate([np.concatenate(row, 1) for row in rows])
    Image.fromarray(picture).save(IMAGES / "rendered.png", optimize=True)


def _with_points(record) -> np.ndarray:
    picture = Image.fromarray(record.image)
    draw = ImageDraw.Draw(picture)
    for x, y in record.landmarks:
        draw.ellipse([x - 1, y - 1, x + 1, y + 1], fill=(60, 255, 60))
    return np.asarray(picture)


def expressions() -> None:
    """One head with some shapes of ARKit's names at full weight, and turned."""
    model = open_model()
    light = rendering.ambient(0.7)
    light[2], light[1] = 0.35, 0.2
    coeffs = {
        "id_coeffs": np.random.default_rng(5).normal(0, 0.7, 40),
        "exp_coeffs": np.zeros(53), "albedo_coeffs": np.zeros(24), "sh_light": light,
        "pose": np.array([0, 0, 0, 0, 0, 0.12]),
    }  # fmt: skip
    head = Head3D({k: np.float32(v) for k, v in coeffs.items()}, model)
    names = ("jawOpen", "mouthSmile", "browInnerUp", "eyeBlink", "mouthPucker",
             "noseSneer", "mouthFrown")  # fmt: skip
    cells = []
    for name in names:
        sides = [n for n in model.expression_names if n.removesuffix("_L") == name
                 or n.removesuffix("_R") == name]  # fmt: skip
        weights = model.weights(**dict.fromkeys(sides, 1.0))
        cells.append(head.changed(exp_coeffs=weights).render(160)[0])
    rows = [np.concatenate(cells, 1), head.turntable(160)]
    Image.fromarray(np.concatenate(rows)).save(IMAGES / "heads.png", optimize=True)


_SAID = (
    "a happy person with blond hair", "an angry person with black hair",
    "a surprised person", "a sad person with grey hair",
    "a bald person, looking scared", "a person with pale skin wearing lipstick",
    "a disgusted person with brown hair", "a calm person with dark hair",
)  # fmt: skip


def faces3d(run: str) -> None:
    """Rendered faces, a FaceGPT's heads of them, from another side, and of texts."""
    model = gptface_jax.load(run)
    source = RenderedFaces(size=128, count=8, seed=9)
    light = rendering.ambient(0.7)
    light[2], light[1] = 0.35, 0.2
    shown = [source[i].image for i in range(8)]
    found = [model.face3d(picture, align=False) for picture in shown]
    turned = {"pose": [0, 0.6, 0, 0, 0, 0.05], "sh_light": light}
    rows = [
        shown,
        [head.render(128)[0] for head in found],
        [head.changed(**turned).render(128)[0] for head in found],
        [model.face3d(text=text).render(128)[0] for text in _SAID],
        [model.face3d(text=_SAID[0], seed=i).render(128)[0] for i in range(8)],
    ]
    picture = np.concatenate([np.concatenate(row, 1) for row in rows])
    Image.fromarray(picture).save(IMAGES / "faces3d.png", optimize=True)


def curves() -> None:
    """What the bundled model's runs logged."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    log = (networks.BUNDLED / "demo64" / "training_log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in log]
    panels = (
        ("vqgan", "psnr", "tokenizer: PSNR, dB"),
        ("gptface", "image_nll", "masked image tokens: NLL, nats"),
        ("gptface", "image_text_gain", "what the text saves, nats a code"),
        ("gptface", "itm_accuracy", "image-text matching: accuracy"),
    )
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.4), layout="constrained")
    for axis, (run, name, title) in zip(axes, panels):
        for key, label in ((name, "training"), (f"eval/{name}", "held out")):
            points = [(r["step"], r[key]) for r in rows if r["run"] == run and key in r]
            if points:
                axis.plot(*zip(*points), label=label)
        if name == "itm_accuracy":
            for ratio in (0, 40, 65):
                key = f"eval/itm_accuracy_{ratio}"
                points = [(r["step"], r[key]) for r in rows if key in r]
                axis.plot(*zip(*points), label=f"held out, {ratio} % masked")
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.legend(fontsize=7)
    figure.savefig(IMAGES / "curves.png", dpi=110)


# Runs of docs/tokenizer.md: file in docs/logs -> how it looks.
TOKENIZER_RUNS = {
    "pixels": "tab:gray",
    "healthy": "tab:green",
    "won": "tab:orange",
    "ruined": "tab:red",
    "dead_codes": "tab:purple",
}


def tokenizer_curves() -> None:
    """Healthy and sick tokenizers, as they were logged."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    def gap(row):
        side = "discriminator/{}_logits".format
        return row[side("real")] - row[side("fake")] if row["adversarial"] else None

    panels = {
        "codes in use": lambda r: r["codes_in_use"],
        "PSNR, dB": lambda r: r["psnr"],
        "l1_ratio": lambda r: r.get("l1_ratio"),
        "discriminator/loss_share": lambda r: r.get("discriminator/loss_share"),
        "real - fake logits": lambda r: gap(r) if "adversarial" in r else None,
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(18, 3.4), layout="constrained")
    for name, colour in TOKENIZER_RUNS.items():
        text = (LOGS / f"{name}.jsonl").read_text()
        rows = [r for r in map(json.loads, text.splitlines()) if "loss" in r]
        for axis, read in zip(axes, panels.values()):
            points = [(r["step"], read(r)) for r in rows if read(r) is not None]
            if points:
                axis.plot(*zip(*points), color=colour, label=name.replace("_", " "))
    for axis, title in zip(axes, panels):
        axis.set_title(title)
        axis.set_xlabel("step")
    alarms = AdversaryConfig()
    axes[2].axhline(alarms.ruined_above, linestyle=":", color="black")
    axes[3].axhline(alarms.won_below, linestyle=":", color="black")
    axes[0].legend(fontsize=7)
    figure.savefig(IMAGES / "tokenizer_curves.png", dpi=110)


def tokenizers(paths: list[str]) -> None:
    """A public-domain portrait and drawn faces through tokenizers and back."""
    with tempfile.TemporaryDirectory() as folder:
        photo = image_io.decode(quickstart.ASTRONAUT)
        left, top, right, bottom = HEAD
        shown = [photo[top:bottom, left:right]]
        source = synthetic.SyntheticFaces(size=128, count=400, seed=3)
        shown += [source[4 * i].image for i in range(7)]
        for i, picture in enumerate(shown):
            Image.fromarray(picture).save(pathlib.Path(folder) / f"{i}.png")
        spec = {"kind": "folder", "path": folder}
        page = IMAGES / "tokenizers.png"
        reconstruction.reconstruct(spec, paths, page, progress=False)


def edits() -> None:
    """The quickstart's sheet."""
    with tempfile.TemporaryDirectory() as folder:
        sheet = quickstart.run(pathlib.Path(folder) / "out")
        shutil.copy(sheet, IMAGES / "quickstart.png")


def recipes() -> None:
    """The recipes of docs/editing.md on drawn faces."""
    model = gptface_jax.load("demo")

    def face(number: int) -> np.ndarray:
        return synthetic.render(synthetic.sample_factors(2026, number), 192).image

    def worn(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A face mask over a picture, and where somebody marks it, generously."""
        side = len(photo)
        cover = Image.new("L", (side, side))
        shape = [(0.2, 0.56), (0.5, 0.5), (0.8, 0.56), (0.76, 0.82), (0.5, 0.95)]
        corners = [(x * side, y * side) for x, y in [*shape, (0.24, 0.82)]]
        ImageDraw.Draw(cover).polygon(corners, fill=255)
        hidden = np.asarray(cover) > 0
        marked = ndimage.binary_dilation(hidden, iterations=side // 24)
        return np.where(hidden[..., None], np.uint8([170, 196, 214]), photo), marked

    masked, marked = worn(face(22))
    rows = [
        model.edit(face(22), "a smiling woman", region="mouth", seed=2, align=False),
        model.edit(
            face(98), "a woman with blond hair", region="hair", seed=2, align=False
        ),
        model.edit(
            face(111), "a man wearing a tie", region="neck", seed=1, align=False
        ),
        model.edit(masked, "a smiling woman", marked, grow=1, seed=5, align=False),
        model.inpaint(face(22), region="span:0.4", seed=1, align=False),
        model.inpaint(face(22), region="random:0.4", seed=1, align=False),
    ]
    shown, captions = [], []
    for row in rows:
        before = np.asarray(row.before)
        shown += [before, pictures.shade(before, row.mask), np.asarray(row.image)]
        said = row.details["mask"].get("region", "--mask")
        captions += ["before", said, f"“{row.text}”" if row.text else "inpainted"]
    details = model.details(True, "", 0, model.decode)
    details |= {"edits": [dict(row.details) for row in rows]}
    pictures.save(pictures.sheet(shown, 6, captions), IMAGES / "recipes.png", details)


def found() -> None:
    """Edits of a face that is small, off the centre or tilted (public domain)."""
    model = gptface_jax.load("demo")
    photo = Image.open(quickstart.ASTRONAUT)
    corner = Image.new("RGB", (900, 600), (120, 130, 140))
    corner.paste(photo.resize((330, 330)), (540, 250))
    tilted = photo.rotate(-37, Image.Resampling.BICUBIC, fillcolor=(120, 130, 140))
    rows = [
        model.edit(corner, "a woman wearing a hat", region="hat", seed=2),
        model.edit(tilted, "a woman with a serious face", region="mouth", seed=1),
    ]
    shown, captions, places = [], [], ("small, off the centre", "tilted")
    for row, place in zip(rows, places):
        before, after = np.asarray(row.before), np.asarray(row.image)
        view = views.view_of(row.details)
        shown += [pictures.squares_seen(before, [view]), after, view.picture(after)]
        captions += [f"{place}: the face is found", f"“{row.text}”", "upright"]
    details = model.details(True, "", 0, model.decode)
    details |= {"edits": [dict(row.details) for row in rows]}
    sheet = pictures.sheet(shown, 3, captions, cell=260)
    pictures.save(sheet, IMAGES / "faces.png", details)


def moved() -> None:
    """A face with other expressions, and turned (public domain)."""
    model = gptface_jax.load("demo")
    moves = [
        {"expression": {"browInnerUp": 1, "jawOpen": 0.3}},
        {"expression": {"browDown": 1, "eyeSquint": 0.4, "mouthSmile": -0.6}},
        {"turn": {"yaw": -15}}, {"turn": {"yaw": 15, "pitch": 8}},
        {"turn": {"roll": 12}},
    ]  # fmt: skip
    rows = [model.edit(quickstart.ASTRONAUT, **move) for move in moves]
    x0, y0, x1, y1 = HEAD
    shown = [np.asarray(rows[0].before)[y0:y1, x0:x1]]
    shown += [np.asarray(row.image.crop(HEAD)) for row in rows]
    said = [", ".join(f"{k} {v:+g}" for m in move.values() for k, v in m.items())
            for move in moves]  # fmt: skip
    details = model.details(True, "", 0, model.decode)
    details |= {"edits": [dict(row.details) for row in rows]}
    sheet = pictures.sheet(shown, 6, ["the photo", *said], cell=200)
    pictures.save(sheet, IMAGES / "moved.png", details)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tokenizer", action="append", default=[], help="run to be shown in a grid"
    )
    parser.add_argument("--facegpt", help="run of a FaceGPT whose heads are shown")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    if options.tokenizer:
        tokenizers(options.tokenizer)
    if options.facegpt:
        faces3d(options.facegpt)
    faces()
    rendered()
    expressions()
    curves()
    tokenizer_curves()
    edits()
    recipes()
    found()
    moved()
