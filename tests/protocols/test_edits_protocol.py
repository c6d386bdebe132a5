"""Edits judged by a judge, on the tiny model: its own, and those of another program."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from PIL import Image

from gptface_jax.cli.evaluate import edits as verb
from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import opening, training
from gptface_jax.protocols import editors, edits, feature_space, strength
from gptface_jax.protocols import judge as judges
from gptface_jax.protocols import records as held_out
from gptface_jax.systems.gptface.options import DecodeConfig

SPEC = {"kind": "synthetic", "size": 32, "count": 10, "seed": 4}
NAMES = ("Smiling", "Eyeglasses")


@pytest.fixture(scope="module")
def judge_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge") / "judge"
    config = load_config("configs/judge/faces64.py:tiny")
    training.train(config, folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def judge(judge_run):
    return judges.Judge(opening.open_network(judge_run, "judge"))


@pytest.fixture(scope="module")
def records():
    return held_out.open_records(SPEC, 5)


@pytest.fixture(scope="module")
def photos(records):
    return held_out.pictures_of(records, 32)


def test_features_are_compiled_for_batches_of_one_size():
    sizes = []

    def embed(pixels):
        sizes.append(len(pixels))
        return pixels.mean((1, 2))

    photos = np.random.default_rng(0).integers(0, 256, (70, 4, 4, 3), np.uint8)
    found = feature_space.FeatureSpace(embed, None).of_photos(photos)
    assert sizes == [64, 64]
    np.testing.assert_allclose(found, photos.mean((1, 2)) / 127.5 - 1, atol=1e-5)


def test_edits_are_judged(model, judge, judge_run, records, photos):
    scores = judge.balanced_accuracy(records)
    assert set(scores) == set(judge.attributes)
    config = model.decode_config({"guidance": "none"})
    features = feature_space.open_space(judge_run)
    people = np.array([0, 0, 1, 1, 2])
    figures = edits.judge_edits(
        editors.by_model(model, config, batch_size=4),
        judge,
        photos,
        editors.tasks(records, NAMES, 32),
        edits.Measures(
            truth=edits.counterfactuals({**SPEC, "size": 48}),  # of any size
            features=features,
            people=people,
        ),
        progress=False,
    )
    seen = features.of_photos(photos).astype(float)
    apart = ((seen[:, None] - seen) ** 2).sum(-1) + np.diag([np.inf] * 5)
    hits = people[apart.argmin(1)] == people  # number 4 has no other to find
    assert figures["same_person_before"] == hits[:4].mean()
    assert 0 <= figures["same_person"] <= 1
    assert set(figures["attributes"]) == set(NAMES)
    assert set(figures["kinds"]) == {"expression", "occlusion"}
    smiles = figures["kinds"]["expression"]
    assert smiles["gap"] == figures["attributes"]["Smiling"]["gap"]
    assert 0 <= smiles["kept_distance"] < 1 and 0 < smiles["others_kept"] <= 1
    kept = [kind["kept_distance"] for kind in figures["kinds"].values()]
    assert np.mean(kept) == pytest.approx(figures["kept_distance"])
    assert figures["mean"]["count"] == 5
    assert np.isinf(figures["outside_psnr"])  # composited: bit-identical
    assert np.isfinite(figures["outside_psnr_raw"])
    assert figures["examples"].shape == (2, 3, 32, 32, 3)
    assert 5 < figures["inside_psnr"] < 60 and figures["frechet"] > 0
    assert 0 < figures["others_kept"] <= 1 and figures["seconds"] > 0
    present = records[0].labels["Smiling"] > 0.5
    before = edits.counterfactuals(SPEC)(0, "Smiling", present)
    np.testing.assert_array_equal(before, records[0].image)
    with pytest.raises(UserError, match="does not know 'Bald'"):
        judge.check(("Smiling", "Bald"))
    tasks = [dataclasses.replace(editors.tasks(records, NAMES, 32)[0], attribute="Age")]
    with pytest.raises(UserError, match="does not know 'Age'"):
        edits.judge_edits(None, judge, photos, tasks)
    with pytest.raises(UserError, match="where 'Young' shows"):
        editors.tasks(records, ("Young",), 32)


def test_nothing_is_edited_by_no_candidate_nor_turned_by_less_than_nothing():
    with pytest.raises(UserError, match="samples is 0"):
        editors.by_model(None, None, num_candidates=0)
    for most in (0, -2):
        with pytest.raises(UserError, match=f"strength is {most};"):
            strength.settings(most)
    assert strength.settings(2)[::4] == (-2, 0, 2)


def test_the_table_tells_what_changes_before_compositing():
    """Of edits that are pasted as they come there is nothing to tell."""
    row = {"seed": 0, "mean": {"asked": 0.5, "opposite": 0.25, "gap": 0.25}}
    ours = {"method": "ours", "forwards": 8.0, "outside_psnr_raw": 21.26, **row}
    plain = {"method": "plain", "forwards": 8.0, **row}
    lines = edits.edits_table([ours, plain]).split("\n")
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert cells[0][-1] == "outside before compositing, dB"
    assert cells[2][-1] == "21.3" and lines[3].endswith("| 0.250 |  |")
    assert "compositing" not in edits.edits_table([plain])
    # What was not defined is null when a table is read again.
    again = edits.edits_table([{**ours, "same_person": None, "frechet": float("nan")}])
    assert "None" not in again and "nan" not in again


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(
    tiny, judge_run, tmp_path, gptface_command, capsys
):
    methods, out = tmp_path / "methods.py", tmp_path / "rows.json"
    methods.write_text(
        "def get_sweep():\n"
        "    plain = {'guidance': 'none', 'k': 64}\n"
        "    return {'plain': plain, 'best_of_2': {**plain, 'samples': 2}}\n"
    )
    command = (
        "evaluate", "edits", "--quiet", "--model", tiny / "model", "--judge",
        judge_run, "--images", "synthetic", "--data", "size=32",
        "--attributes", "Smiling", "--methods", methods, "--out", out, "--limit",
    )  # fmt: skip
    assert gptface_command(*command, 3, "--only", "plain") == 0
    (first,) = json.loads(out.read_text())
    capsys.readouterr()
    assert gptface_command(*command, 3) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("| method | forwards | asked | opposite | gap | others")
    assert [line.split(" | ")[0] for line in table[2:]] == ["| plain", "| best_of_2"]
    rows = json.loads(out.read_text())
    assert rows[0] == first and rows[1]["samples"] == 2  # seconds too: not again
    assert all(row["decode"]["cfg"] == 1.0 for row in rows)  # whatever the model's own
    assert gptface_command(*command, 4) == 2
    assert "of another evaluation; write to another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_repairs_and_seams_stand_in_the_table_of_kinds(
    tiny, judge_run, tmp_path, gptface_command, capsys
):
    out, plot = tmp_path / "rows.json", tmp_path / "rates.png"
    command = (
        "evaluate", "edits", "--quiet", "--model", tiny / "model", "--judge",
        judge_run, "--images", "synthetic", "--data", "size=32", "--limit", 9,
        "--attributes", "Smiling", "--k", 64, "--guidance", "none", "--out", out,
        "--seams", "--features", judge_run, "--repairs", "--plot", plot,
    )  # fmt: skip
    assert gptface_command(*command) == 0
    table = capsys.readouterr().err.split("| kind |")[1].splitlines()
    assert [line.split(" | ")[0] for line in table[2:] if line] == [
        "| expression", "| scratches", "| stitching"
    ]  # fmt: skip
    first, second = json.loads(out.read_text())
    assert first["upright"] is None and second["method"] == "repairs"
    assert {"kid", "seam_auc"} <= set(second["kinds"]["stitching"])
    assert plot.exists() and gptface_command(*command) == 0
    assert json.loads(out.read_text()) == [first, second]  # nothing is made again
    capsys.readouterr()
    assert gptface_command(*command[:-5], "--landmarks") == 2  # measures something else
    assert "of another evaluation; write to another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, told",
    [
        (("--upright",), "drawn faces are upright"),
        (("--repairs", "--pictures", "made"), "--repairs is what --model makes"),
        (("--repairs", "--limit", 3), "3 of the photographs are left, and 4 are"),
        (("--seams", "--limit", 1), "1 of the photographs are left, and 2 are"),
    ],
)
def test_measures_that_do_not_fit(options, told, judge_run, gptface_command, capsys):
    command = "evaluate", "edits", "--judge", judge_run, "--images", "synthetic"
    assert gptface_command(*command, "--attributes", "Smiling", *options) == 2
    assert told in capsys.readouterr().err


def test_features_outside_are_those_of_what_lies_there(judge_run, photos):
    space = feature_space.open_space(judge_run)
    regions = np.zeros(photos.shape[:3], bool)
    regions[:, :8] = True
    changed = photos.copy()
    changed[:, :8] = 0
    inside = space.outside(changed, photos, regions)
    outside = space.outside(changed, photos, ~regions)
    assert (inside < outside).all() and (inside > 0).any()
    np.testing.assert_array_equal(space.outside(photos, photos, regions), 0)


def test_what_is_judged_is_what_users_get(model, photos, records):
    (task, _) = editors.tasks(records, ("Smiling",), 32)
    config = model.decode_config({"guidance": "none"})
    key = jax.numpy.stack([jax.random.key(7)])
    grey = np.repeat(photos[1].mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    for photo in (photos[0], grey):
        batch = model.editor.edit(
            photo[None], task.regions[:1], ["a smiling woman"], config, key
        )
        own = model.edit(
            photo, "a smiling woman", mask=task.regions[0], align=False, seed=7,
            guidance="none", samples=1,
        )  # fmt: skip
        pasted = editors.pasted(
            photo, batch.images[0], batch.open_tokens[0], task.regions[0]
        )
        np.testing.assert_array_equal(pasted, np.asarray(own.image))


@pytest.mark.slow
def test_our_own_edits_written_and_read_again_have_the_same_figures(
    model, judge, judge_run, photos, records, tmp_path
):
    asked = editors.tasks(records, NAMES, 32, seed=3)
    measures = edits.Measures(
        truth=edits.counterfactuals(SPEC),
        features=feature_space.open_space(judge_run),
        people=np.array([0, 0, 1, 1, 2]),
    )
    ours = editors.by_model(model, model.decode_config({"guidance": "none"}), seed=3)

    def written(photos, task, done):
        edited = ours(photos, task, done)
        for name, picture in zip(task.ids, edited.images):
            Image.fromarray(picture).save(tmp_path / f"{name}.png")
        return edited

    first = edits.judge_edits(written, judge, photos, asked, measures, progress=False)
    read, digest = editors.by_other(tmp_path, asked)
    again = edits.judge_edits(read, judge, photos, asked, measures, progress=False)
    assert set(first) - set(again) == {"seconds", "outside_psnr_raw"}
    for name, figure in again.items():
        np.testing.assert_equal(figure, first[name], err_msg=name)
    # A pixel outside the mask counts, and is another set of pictures.
    path = tmp_path / f"{asked[0].ids[0]}.png"
    spoilt = np.array(Image.open(path))
    spoilt[0, 0] ^= 255
    Image.fromarray(spoilt).save(path)
    read, other = editors.by_other(tmp_path, asked)
    assert other != digest
    spoilt = edits.judge_edits(read, judge, photos, asked, progress=False)
    assert np.isfinite(spoilt["outside_psnr"])
    Image.fromarray(photos[0][:16]).save(path)
    read, _ = editors.by_other(tmp_path, asked)
    with pytest.raises(UserError, match="is 32 x 16, its photograph 32 x 32"):
        edits.judge_edits(read, judge, photos, asked, progress=False)
    path.unlink()
    with pytest.raises(UserError, match=f"lacks 1 of 20 pictures, such as {path.name}"):
        editors.by_other(tmp_path, asked)


@pytest.mark.slow
def test_another_program_stands_in_the_same_table(
    tiny, judge_run, tmp_path, gptface_command, capsys
):
    """It copies the photographs; the product edits the same jobs."""
    jobs, out = tmp_path / "jobs", tmp_path / "rows.json"
    evaluate = (
        "evaluate", "edits", "--quiet", "--model", tiny / "model", "--images",
        "synthetic", "--data", "size=32", "--attributes", "Smiling", "--limit", 3,
    )  # fmt: skip
    assert gptface_command(*evaluate, "--write-jobs", jobs) == 0
    assert gptface_command(*evaluate, "--write-jobs", jobs) == 2
    assert "is not empty" in capsys.readouterr().err
    lines = [json.loads(x) for x in (jobs / "jobs.jsonl").read_text().splitlines()]
    assert [x["id"] for x in lines[2:4]] == [
        "00002_Smiling_asked", "00000_Smiling_opposite"
    ]  # fmt: skip
    copies = tmp_path / "copies"
    copies.mkdir()
    for line in lines:
        mask = np.asarray(Image.open(jobs / line["mask"]))
        assert mask.shape == (32, 32) and set(np.unique(mask)) == {0, 255}
        (copies / line["image"]).write_bytes((jobs / line["image"]).read_bytes())
    own = tmp_path / "own"
    product = ("edit", "--model", tiny / "model", "--jobs", jobs / "jobs.jsonl")
    quick = ("--no-align", "--samples", 1, "--guidance", "none", "--k", 64, "--quiet")
    assert gptface_command(*product, *quick, "--out", own) == 0
    judged = (*evaluate, "--judge", judge_run, "--out", out)
    assert gptface_command(*judged, "--pictures", f"copy={copies}") == 0
    capsys.readouterr()
    more = ("--pictures", own, "--pictures", f"copy={copies}", "--guidance", "none")
    assert gptface_command(*judged, *more, "--k", 64) == 0
    table = capsys.readouterr().out.splitlines()
    assert [x.split(" | ")[0] for x in table[2:]] == ["| copy", "| none", "| own"]
    assert "outside at least, dB" in table[0]
    copied, ours, asked = json.loads(out.read_text())
    mean = copied["mean"]
    assert mean["asked"] == mean["before"] and copied["others_kept"] == 1
    assert copied["forwards"] is None and ours["forwards"] > 0
    assert all(line.rstrip("| ").endswith("inf") for line in table[2:])
    assert asked["outside_psnr"] is ours["outside_psnr"] is None  # JSON has no infinity
    # Other pictures of one name are no other row.
    first = copies / lines[0]["image"]
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(first)
    assert gptface_command(*judged, "--pictures", f"copy={copies}") == 2
    assert "other edits as 'copy', seed 0" in capsys.readouterr().err
    before = out.read_text()
    both = ("--pictures", f"none={own}", "--guidance", "ascent", "none")
    assert gptface_command(*judged, *both) == 2
    assert "other edits as 'none', seed 0" in capsys.readouterr().err
    assert out.read_text() == before  # before anything is measured
    for wrong, said in (
        (("--pictures", copies, "--attributes", "Bald"), "does not know 'Bald'"),
        (("--pictures", copies, "--decode-seeds", 0, 1), "one of --decode-seeds"),
        (("--pictures", copies, "--sheet", tmp_path / "a.png"), "--sheet shows what"),
        (("--pictures", copies, "--write-jobs", "x"), "comes before --pictures"),
        (("--pictures", "a=", "--judge", judge_run), "is no NAME=PATH"),
    ):
        assert gptface_command(*judged, *wrong) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_settings_of_a_slider_are_judged(
    tiny, judge_run, tmp_path, gptface_command, capsys
):
    out, sheet = tmp_path / "strength.json", tmp_path / "strips.png"
    command = (
        "evaluate", "strength", "--quiet", "--model", tiny / "model", "--judge",
        judge_run, "--images", "synthetic", "--data", "size=32", "--limit", 2,
        "--out", out,
    )  # fmt: skip
    names = "Smiling", "Wearing_Hat"
    done = gptface_command(*command, "--attributes", *names, "--sheet", sheet)
    assert done == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("| attribute | before | -4 | -3 |")
    figures = json.loads(out.read_text())["attributes"]
    assert list(figures) == [*names] and len(table) == 4
    for row in figures.values():
        assert len(row["scores"]) == len(row["present"]) == 9
        assert -1 <= row["lowest_rho"] <= row["picture_rho"] <= 1
        assert np.ptp(row["scores"]) > 0
    with Image.open(sheet) as shown:  # two pictures an attribute, ten columns
        assert shown.width == 10 * (80 + 8) + 8
    assert gptface_command(*command, "--attributes", "Young") == 2
    assert "where 'Young' shows" in capsys.readouterr().err


def test_ways_take_only_what_a_model_has_learnt_from_its_options(tmp_path):
    own = DecodeConfig(
        guidance="none", cfg=3.0, refresh=4, prune_at=(0.5,), density=1.0,
        temperature=0.5, select="halton", match_token=False,
    )  # fmt: skip
    model = types.SimpleNamespace(
        decode_config=lambda method: dataclasses.replace(own, **method)
    )
    ways = tmp_path / "ways.py"
    ways.write_text(
        "def get_sweep():\n    return {'global': {'select': 'global', 'samples': 3}}"
    )
    given = dict.fromkeys(("step_size", "k", "guidance", "only", "methods"))
    options = types.SimpleNamespace(**given, no_match_token=False, samples=2)
    assert verb._methods(options, model) == {"default": (own, 2)}
    options.methods = str(ways)
    expected = DecodeConfig(
        guidance="none", density=1.0, temperature=0.5, select="global",
        match_token=False,
    )  # fmt: skip
    assert verb._methods(options, model) == {"global": (expected, 3)}
