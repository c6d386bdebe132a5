"""Photos seen by a perception model: facade, pictures, verb, jobs and import."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_faceptor
from PIL import Image

import gptface_jax
from gptface_jax.apps import api
from gptface_jax.apps.perception_api import Perceiver, Seen
from gptface_jax.cli.main import main
from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import regions
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.experiments import faceptor_run
from gptface_jax.interop import faceptor
from gptface_jax.nn.perception import Perception, TaskConfig
from gptface_jax.pipelines import perception_pictures, rows, upright
from gptface_jax.pipelines.editing_model import Selection
from gptface_jax.pipelines.networks import Network
from gptface_jax.pipelines.perception import FaceSeen, PerceptionModel
from gptface_jax.pipelines.perception import _said as said_of
from gptface_jax.pipelines.views import View
from gptface_jax.protocols import perception as perception_protocol
from gptface_jax.systems.faceptor import objective


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model directory with random weights."""
    path = tmp_path_factory.mktemp("perception") / "model"
    tiny_faceptor.write(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return gptface_jax.load(folder)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A portrait of the public domain, that comes with the package."""
    source = gptface_jax.__path__[0] + "/assets/astronaut.jpg"
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.open(source).save(path)
    return path


def test_a_face_is_seen(model, photo, tmp_path):
    seen = model.perceive(photo)
    (face,) = seen.faces
    assert face.face is not None and face.view.face
    assert [one.box for one in model.faces(photo)] == [face.face.box]
    assert face.landmarks.shape == (68, 2)
    x0, y0, x1, y1 = face.view.box
    inside = (face.landmarks > [x0 - 1, y0 - 1]) & (face.landmarks < [x1 + 1, y1 + 1])
    assert inside.all()  # they are pixels of the photo
    assert face.parsing.shape == (32, 32) and len(face.classes) == 19
    assert 0 <= face.age <= 100 and face.age_spread > 0
    assert sum(face.expressions.values()) == pytest.approx(1, abs=1e-5)
    assert face.expression == max(face.expressions, key=face.expressions.get)
    assert len(face.attributes) == 40 and "Smiling" in face.attributes
    paths = seen.save(tmp_path / "seen.png")
    assert [p.name for p in paths] == ["seen.png", "seen.json"]
    picture = Image.open(paths[0])
    assert picture.width > 2 * perception_pictures._CELL
    written = json.loads(paths[1].read_text())
    assert written["faces"][0]["expression"] == face.expression
    assert written["size"] == [seen.photo.shape[1], seen.photo.shape[0]]
    words = perception_pictures.words(face)
    assert f"age {face.age:.0f}" in words and face.expression in words


def test_what_is_asked_can_be_chosen(model, photo):
    assert "affect_drawn" in model.chosen() and "affect_faces" not in model.chosen()
    assert "recog_drawn" not in model.chosen()
    (face,) = model.perceive(photo, tasks=["affect_faces"]).faces
    assert face.landmarks is None and face.age is None and face.expression
    for tasks, said in (
        (["recog_drawn"], "task 'recog_drawn' cannot be asked"),
        (["age_drwan"], "did you mean 'age_drawn'"),
        (["affect_faces", "affect_drawn"], "are of one family"),
    ):
        with pytest.raises(UserError, match=said):
            model.perceive(photo, tasks=tasks)
    with pytest.raises(UserError, match="has no 'edit'"):
        model.edit(photo)


def test_nothing_is_said_of_what_was_not_taught():
    """Drawn faces have no five o'clock shadow, in no picture's labels."""
    source = SyntheticFaces(size=32, count=40, seed=3)
    content = json.loads(faceptor_run.learnt(source, {"biattr_drawn": source}))
    taught = content["attributes"]["biattr_drawn"]
    assert "Smiling" in taught and "5_o_Clock_Shadow" not in taught
    frame = np.array(content["frame"])
    assert frame.shape == (5, 2) and frame[0, 0] < frame[2, 0] < frame[1, 0]
    network = Network(Perception(tiny_faceptor.CONFIG), {}, "", {})
    bare = PerceptionModel(network, frame, taught={"biattr_drawn": taught})
    said = {"biattr_drawn": {"probabilities": np.full(40, 0.9)}}
    seen = bare._seen(said, 1, None, View.crop((0, 0, 32, 32)))
    assert [*seen.attributes] == taught


def test_nothing_is_said_of_tasks_that_were_not_trained(folder, model, tmp_path):
    alone = tmp_path / "model"
    shutil.copytree(folder, alone)
    frame = {"frame": np.array(upright.FRAME).tolist(), "tasks": ["age_drawn"]}
    (alone / faceptor_run.FRAME).write_text(json.dumps(frame))
    trained = gptface_jax.load(alone)
    assert trained.chosen() == ("age_drawn",) and not trained.predicts_parsing
    assert len(model.chosen()) == 5  # whose file says nothing of it
    with pytest.raises(UserError, match="'affect_drawn' .*was trained on age_drawn"):
        trained.perceive(np.zeros((32, 32, 3), np.uint8), tasks=["affect_drawn"])


def test_a_task_is_asked_at_the_stage_at_which_it_was_trained(
    folder, model, tmp_path, monkeypatch
):
    """Levels that were learnt for one task say nothing of another."""
    staged = tmp_path / "model"
    shutil.copytree(folder, staged)
    stage = {"affect_faces": 2, "affect_drawn": 1, "age_drawn": 1}
    said = {"frame": np.array(upright.FRAME).tolist(), "tasks": [*stage]}
    said |= {"stage": stage, "latest": ["affect_faces"]}
    (staged / faceptor_run.FRAME).write_text(json.dumps(said))
    trained = gptface_jax.load(staged)
    assert trained.chosen() == ("age_drawn", "affect_faces")
    found = {}

    def forward(module, variables, images, stage, *_):
        found.update(dict.fromkeys(images, stage))
        queries = {task: module.config.task(task).queries for task in images}
        return {t: jnp.zeros((len(images[t]), n)) for t, n in queries.items()}, {}

    monkeypatch.setattr(objective, "forward", forward)
    blank = np.zeros((1, 32, 32, 3), np.uint8)
    (answer,) = rows.answer([trained.look(blank, trained.chosen())])
    assert (
        found == {"age_drawn": 1, "affect_faces": 2} and answer.keys() == found.keys()
    )
    perception_protocol._read(trained, "affect_drawn", trained.variables, blank)
    assert found["affect_drawn"] == 1
    rows.answer([model.look(blank, ("age_drawn",))])  # whose file notes none
    assert found["age_drawn"] == 2


def test_how_sure_a_point_is():
    """The peak of its map: of an even one half, of the spike of another 0.9."""
    raw = np.zeros((1, 8, 8, 68), np.float32)
    raw[0, 3, 4, 7] = np.log(9)
    (peaks,) = said_of(tiny_faceptor.CONFIG, "align_drawn", raw)["peaks"]
    assert peaks[7] == pytest.approx(0.9) and peaks[8] == 0.5
    face = FaceSeen(1, View.crop((0, 0, 8, 8)), landmark_confidences=peaks)
    assert face.described()["landmark_confidences"][6:8] == [0.5, 0.9]


def test_no_task_is_refused(model):
    blank = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(UserError, match="no task is asked; .* are align_drawn, "):
        model.perceive(blank, tasks=[])
    alone = Perceiver(model.network, tasks=["recog_drawn"])
    with pytest.raises(UserError, match="no task is asked; .* has nothing to say"):
        alone.perceive(blank)


def test_what_cannot_be_judged_is_said_before_anything_is(folder, tmp_path, capsys):
    judge = ("evaluate", "perception", "--model", folder, "--images", "synthetic")
    judge += ("--data", "size=32", "--limit", 4, "--quiet")
    for more, said in (
        (("--task", "recog_x"), "there is no task 'recog_x'"),
        (("--samples", tmp_path / "a"), "task 'align_drawn' is of neither; name"),
    ):
        assert run(*judge, *more) == 2
        found = capsys.readouterr()
        assert said in found.err and found.out == ""


@pytest.mark.slow
def test_several_faces_get_a_column_each(model, photo):
    one = np.asarray(Image.open(photo))
    both = np.concatenate([one, one[:, ::-1]], 1)
    seen = model.perceive(both)
    assert [face.number for face in seen.faces] == [1, 2]
    narrow, wide = (model.perceive(x).image.width for x in (one, both))
    assert wide > narrow
    (second,) = model.perceive(both, face=2).faces
    np.testing.assert_allclose(second.landmarks, seen.faces[1].landmarks, atol=0.05)


@pytest.mark.slow
def test_pictures_without_a_face(model):
    nothing = np.full((64, 200, 3), 128, np.uint8)
    with pytest.raises(UserError, match="no face was found"):
        model.perceive(nothing)
    seen = model.perceive(nothing, align=False)
    assert seen.faces[0].face is None and seen.faces[0].landmarks is not None
    (face,) = model.perceive(nothing, crop=(10, 0, 74, 64)).faces
    assert face.view.box == (10, 0, 74, 64)


def run(*arguments):
    return main([str(a) for a in arguments])


def _close(one, other):
    """Whether two values are equal but for rounding."""
    return one == other if isinstance(one, str) else abs(one - other) < 0.02


def test_the_verb_and_its_jobs(folder, model, photo, tmp_path, capsys):
    out = tmp_path / "seen.json"
    parts, look = tmp_path / "parts.png", ("perceive", "--model", folder)
    asked = (*look, "--image", photo, "--out", out)
    assert run(*asked, "--parts", parts) == 0
    assert "face 1, age" in capsys.readouterr().out
    assert json.loads(out.read_text())["faces"][0]["landmarks"]
    with Image.open(parts) as image, Image.open(photo) as whole:
        assert image.mode == "P" and image.size == whole.size
        numbers = np.asarray(image)
    told = json.loads(out.read_text())
    assert numbers.max() < len(told["classes"]) and told["classes"][0] == "background"
    capsys.readouterr()
    assert run(*asked, "--parts", tmp_path / "parts.jpg") == 2
    assert "write a .png" in capsys.readouterr().err
    with pytest.raises(UserError, match="no parts are told"):
        Seen(np.zeros((4, 4, 3), np.uint8), ()).parts  # noqa: B018
    assert run("perceive", "--model", folder, "--list") == 0
    listed = capsys.readouterr().out
    assert "align_drawn" in listed and "recog" not in listed
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.open(photo).save(photos / "a.png")
    Image.open(photo).rotate(20).save(photos / "b.png")
    (photos / "c.png").write_bytes(b"no picture")
    jobs = "perceive", "--model", folder, "--jobs", photos, "--quiet"
    assert run(*jobs, "--out", tmp_path / "out") == 2  # one of three cannot be read
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    *seen, third = map(json.loads, rows)
    assert [row["file"] for row in seen] == ["a.png", "b.png"]
    for name, row in zip("ab", seen):  # in one batch, as alone
        alone = model.perceive(photos / f"{name}.png").described()["faces"]
        assert row["found"][0]["expression"] and len(row["found"]) == len(alone)
        same = jax.tree.map(_close, row["found"], alone)
        assert all(jax.tree.leaves(same))
    assert "error" in third
    assert (tmp_path / "out" / "a.json").is_file()
    # Its own pictures are not written over.
    before = (photos / "a.png").read_bytes()
    assert run(*jobs, "--out", photos) == 2
    assert (photos / "a.png").read_bytes() == before
    assert run("perceive", "--model", folder, "--image", photo) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_places_that_parts_cannot_be_written_to(folder, photo, tmp_path, capsys):
    before, out = photo.read_bytes(), tmp_path / "seen.png"
    (tmp_path / "file").write_text("")
    link = tmp_path / "link.png"
    link.symlink_to(photo)
    look = ("perceive", "--image", photo, "--out", out, "--parts")
    for place, said in (
        (photo, "--parts is '{photo}' itself"),
        (link, "--parts is '{photo}' itself"),
        (out, "--parts is '{out}' like --out"),
        (tmp_path / "file" / "parts.png", "Not a directory"),
    ):
        assert run(*look, place, "--model", "gone") != 0  # and the model is not opened
        assert said.format(photo=photo, out=out) in capsys.readouterr().err
    parts = ("--parts", tmp_path / "parts.png", "--task", "age_drawn")
    assert run(*look[:-1], *parts, "--model", folder) == 2
    said = "--parts needs a task of parsing, and asked are age_drawn"
    assert said in capsys.readouterr().err
    assert not out.exists() and photo.read_bytes() == before


def test_parts_of_a_photo_by_hand():
    def seen(number, box, parsing):
        classes = ("background", "hair", "skin")
        return FaceSeen(
            number, View.crop(box), parsing=np.uint8(parsing), classes=classes
        )

    faces = [seen(1, (0, 0, 2, 2), [[1]]), seen(2, (1, 1, 5, 5), [[0, 2], [1, 0]])]
    wanted = np.zeros((5, 6))
    wanted[:2, :2] = 1
    wanted[1:3, 3:5] = 2
    wanted[3:5, 1:3] = 1
    np.testing.assert_array_equal(perception_pictures.parts((5, 6), faces), wanted)


def test_figures_of_points_and_attributes(folder, tmp_path, capsys):
    out = tmp_path / "figures.json"
    judge = ("evaluate", "perception", "--model", folder, "--images", "synthetic")
    judge += ("--data", "size=32", "--limit", 24, "--quiet", "--out", out)
    named = ("--attributes", "Male,Smiling")
    tasks = ("--task", "align_drawn", "--task", "biattr_drawn")
    assert run(*judge, *tasks, *named) == 0
    assert "align_drawn: {" in capsys.readouterr().out
    points, attributes = json.loads(out.read_text())["figures"].values()
    assert list(points["nme"]) == ["inter_ocular", "inter_pupil", "box", "diagonal"]
    assert set(points["judged"].values()) == {24} and points["boxes"] == 0
    assert 0 <= points["box_auc"] <= 1 and 0 <= points["auc"] <= 1
    of = attributes["balanced_by_attribute"]
    assert set(of) | set(attributes["too_few"]) == {"Male", "Smiling"} and of
    assert attributes["balanced"] == pytest.approx(np.mean([*of.values()]))
    for more, said in (
        (("--attributes", "Mal"), "no task asks for 'Mal' (did you mean 'Male'?)"),
        ((*tasks[:2], *named), "is for tasks of the family biattr, and align_drawn"),
        (("--regions", *named), "do not go with --regions"),
    ):
        assert run(*judge, *more) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_single_predictions_of_a_fold(folder, tmp_path, capsys):
    judge = ("evaluate", "perception", "--model", folder, "--images", "synthetic")
    judge += ("--data", "size=32", "--limit", 24, "--quiet")
    rows = []
    for part in ("0/3", "1/3", "2/3"):
        out = tmp_path / f"{part[0]}.jsonl"
        asked = (*judge, "--task", "affect_drawn", "--fold", part, "--samples", out)
        assert run(*asked) == 0
        rows.append([json.loads(line) for line in out.read_text().splitlines()])
    people = [{row["person"] for row in part} for part in rows]
    assert not (people[0] & people[1] or people[1] & people[2])
    assert sum(map(len, rows)) == 24 == len({r["picture"] for p in rows for r in p})
    assert run("evaluate", "folds", *(tmp_path / f"{k}.jsonl" for k in "012")) == 0
    assert "affect_drawn: 24 pictures" in capsys.readouterr().out
    assert run(*judge, "--task", "biattr_drawn", "--samples", tmp_path / "a") == 2
    assert "of expressions and ages" in capsys.readouterr().err
    assert run(*judge, "--fold", "1") == 2
    assert "--fold 1 is no K/N" in capsys.readouterr().err


STEADY = {"text": "a woman", "samples": 1, "guidance": "none", "cfg": 1.0, "k": 64}


def region_seen(model, photo, align):
    """A region that the mesh has too, and of which the model sees something."""
    pixels = np.asarray(Image.open(photo).convert("RGB"))
    (_, view), _ = model.seen(pixels, align=align)
    found = model.parsing(pixels, view)
    names = (name for name in regions.CLASSES if name in regions.REGIONS)
    return next(n for n in names if regions.parsed_region(n, *found) is not None)


def test_an_edit_takes_the_region_of_this_photo(folder, photo, tiny):
    model = api.perceiver(str(folder))
    opened = gptface_jax.load(tiny / "model")
    editor = api.Model(opened.editor, opened.digest, opened.decode, frame=upright.FRAME)
    region, pixels = region_seen(model, photo, True), np.asarray(Image.open(photo))
    wanted, notes = editor.select(pixels, Selection(region=region, perception=model))
    assert wanted.said["perceived"] == [region] and not notes
    assert wanted.said["perception"] == model.digest
    usual, _ = editor.select(pixels, Selection(region=region))
    assert (usual.mask != wanted.mask).any() and "perceived" not in usual.said
    # What is asked of the editor, by a model and by its folder.
    for perception in (model, folder):
        given = {"image": photo, "region": region, "perception": perception, **STEADY}
        request = next(editor.steps("edit", given))
        small = (editor.size, editor.size)
        shown = images.pixels_to_tokens(wanted.inside, small)
        np.testing.assert_array_equal(request.mask, shown)
    for given in ({"box": (0, 0, 9, 9)}, {"region": "random:0.4"}, {}):
        with pytest.raises(UserError, match="perception sees where a region lies"):
            editor.edit(photo, perception=model, **STEADY, **given)
    with pytest.raises(UserError, match="holds no network 'faceptor'"):
        editor.edit(photo, region=region, perception=str(tiny / "model"), **STEADY)


@pytest.mark.slow
def test_the_command_and_jobs_name_the_perception_model(
    folder, model, photo, tiny, tmp_path, capsys
):
    # The tiny model has no frame: it sees the middle square.
    jobs, region = tmp_path / "jobs.jsonl", region_seen(model, photo, False)
    jobs.write_text(json.dumps({"id": "a", "image": str(photo), "region": region}))
    given = (
        "--model", tiny / "model", "--perception", folder, "--text", "a woman",
        "--samples", 1, "--guidance", "none", "--k", 64, "--decode", "cfg=1.0",
    )  # fmt: skip
    out = tmp_path / "out"
    assert run("edit", "--jobs", jobs, "--out", out, "--quiet", *given) == 0
    one = tmp_path / "one.png"
    assert run("edit", "--image", photo, "--region", region, "--out", one, *given) == 0
    said = [
        json.loads(path.read_text())["mask"]
        for path in (out / "a.json", one.with_suffix(".json"))
    ]
    assert said[0] == said[1] and said[0]["perception"] == model.digest
    assert run("edit", "--image", photo, "--propose", "--out", one, *given) == 2
    assert "--perception does not go with --propose" in capsys.readouterr().err


def test_it_goes_back_to_its_release(folder, model, tmp_path, capsys):
    """A file and its sizes, which are read as the same network."""
    out = tmp_path / "faceptor.pth.tar"
    given = "export", "--format", "faceptor", "--run", folder, "--out", out
    assert run(*given) == 0 and "faceptor 0.0" in capsys.readouterr().out
    config, params, state = faceptor.load(out, tmp_path / "faceptor.json")
    assert trees.digest({**params, **state}) == trees.digest(
        jax.tree.map(lambda x, y: x.astype(y.dtype), model.network.params,
                     {**params, **state})
    )  # fmt: skip
    assert config == tiny_faceptor.CONFIG
    assert run(*given) == 2 and "already exists" in capsys.readouterr().err


def test_sizes_and_tasks_are_read_as_they_were_written():
    tasks = (
        TaskConfig("recog_drawn", identities=4),
        TaskConfig("recog_mine", identities=9),
        TaskConfig("align_wflw", resolution=48),
        TaskConfig("age_drawn"),
    )
    for pixels in ("unit", "family"):
        config = dataclasses.replace(tiny_faceptor.CONFIG, tasks=tasks, pixels=pixels)
        said = json.loads(json.dumps(faceptor.their_config(config)))
        assert faceptor.read_config(said) == config
    del said["pixels"]  # as released files have it
    assert faceptor.read_config(said) == config


@pytest.mark.slow
@pytest.mark.shared
def test_a_released_model_is_imported(tmp_path, photo, capsys):
    golden = "../shared/golden/faceptor"
    if not (folder := pathlib.Path(f"{golden}.ckpt")).is_file():
        pytest.skip("../shared/golden is not there")
    out = tmp_path / "released"
    given = "--format", "faceptor", "--config", f"{golden}.json"
    assert run("import", folder, *given, "--out", out) == 0
    assert "tasks: recog_ms1mv3, age_morph2" in capsys.readouterr().out
    model = gptface_jax.load(out)
    assert model.config.last_stage == 2
    (face,) = model.perceive(photo, tasks=["affect_rafdb", "age_morph2"]).faces
    assert face.expression and face.age is not None
    assert dataclasses.asdict(model.network.config)["dense_resolution"] == 128
    assert run("import", folder, *given[:2], "--out", tmp_path / "x") == 2
    assert "--config is missing" in capsys.readouterr().err
