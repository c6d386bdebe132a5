"""Many edits at once: the same as alone, resumable, whatever the jobs beside."""

import concurrent.futures
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import simulated_devices
from PIL import Image

import gptface_jax
from gptface_jax.apps import batch
from gptface_jax.core import locks
from gptface_jax.core.errors import UserError
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.pipelines import pictures

# A pass without guidance, committed at once: the decoder has tests of its own.
QUICK = {"guidance": "none", "k": 64, "samples": 1}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    faces = SyntheticFaces(size=40, count=5, seed=3)
    for i in range(5):
        Image.fromarray(faces[i].image).save(folder / f"face{i}.png")
    return folder


def jobs_file(folder, *lines):
    path = folder / "jobs.jsonl"
    written = (x if isinstance(x, str) else json.dumps(x) for x in lines)
    path.write_text("\n".join(written) + "\n")
    return path


def rows(out):
    lines = (out / "results.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def edited(out, name):
    return np.asarray(Image.open(out / f"{name}.png"))


def run(model, jobs, out, **options):
    return batch.run(model, jobs, out, progress=False, **{"batch_size": 2, **options})


def test_a_job_has_the_same_result_in_any_company(model, photos, tmp_path):
    defaults = {"text": "a man smiling", "region": "mouth", **QUICK}
    jobs = batch.read_jobs(photos, "edit", defaults)
    assert [job.name for job in jobs] == [f"face{i}" for i in range(5)]
    out, alone = tmp_path / "out", tmp_path / "alone"
    assert run(model, jobs, out) == {"done": 5, "failed": 0, "skipped": 0}
    run(model, [jobs[3]], alone)
    run(model, jobs[::-1], tmp_path / "reversed", strips=True)
    for place in (alone, tmp_path / "reversed"):
        np.testing.assert_array_equal(edited(place, "face3"), edited(out, "face3"))
        assert rows(place)["face3"] == rows(out)["face3"]
    # The engine adds nothing to what the method does with the job's own seed.
    single = model.edit(photos / "face3.png", **{**defaults, "seed": jobs[3].seed})
    np.testing.assert_array_equal(np.asarray(single.image), edited(out, "face3"))
    # Jobs that differ in their names alone differ in their random numbers.
    assert len({job.seed for job in jobs}) == 5
    assert not (out / "face3.strip.png").exists()
    assert (tmp_path / "reversed" / "face3.strip.png").exists()


def test_bad_jobs_stop_no_other(model, photos, tmp_path):
    good = {"id": "good", "image": "face0.png", "text": "a man", "region": "hat"}
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    path = jobs_file(
        photos,
        {**good, **QUICK},
        "{not json",
        '["a list"]',
        {"id": "../../escape", "image": "face0.png"},
        {**good, "id": "typo", "regoin": "hat"},
        {**good, "id": "no_text", "text": ""},
        {"id": "no_image", "text": "a man"},
        {**good, "id": "absent", "image": "none.png"},
        {**good, "id": "broken", "image": "broken.jpg"},
        {**good, "id": "strange", "image": 3},
        {**good, "id": "options", "k": 0},
        {**good, "id": "grown", **QUICK, "grow": "1"},
        {**good, "id": "depth", "guidance": "ascent_norm", "last_blocks": 99},
        {**good, "id": "much", "strength": {"Smiling": 9}},
        {**good, "id": "untyped", "strength": {"Smiling": "2"}},
        {**good, "id": "other", **QUICK, "box": None, "region": "mouth"},
    )
    out = tmp_path / "out"
    counts = run(model, batch.read_jobs(path, "edit"), out)
    assert counts == {"done": 16, "failed": 14, "skipped": 0}
    said = {name: row.get("error", "") for name, row in rows(out).items()}
    assert said.pop("good") == said.pop("other") == ""
    for name, part in (
        ("000002", "no JSON"),
        ("000003", "line 3 is no JSON object"),
        ("000004", "'../../escape' names no file"),
        ("typo", "did you mean 'region'"),
        ("no_text", "the text is empty"),
        ("no_image", "'image' is missing"),
        ("absent", "none.png"),
        ("broken", "broken.jpg"),
        ("strange", "image is 3; give a picture or its file"),
        ("options", "k is 0"),
        ("grown", "grow is '1'; give a whole number"),
        ("depth", "99"),
    ):
        assert part in said[name], (name, said[name])
    assert (
        sorted(p.suffix for p in out.iterdir())
        == [".json"] * 2 + [".jsonl"] + [".png"] * 2
    )


def test_stopped_work_goes_on(model, photos, tmp_path, monkeypatch):
    jobs = batch.read_jobs(photos, "inpaint", {"region": "mouth", "k": 64})
    out, whole = tmp_path / "out", tmp_path / "whole"
    run(model, jobs, whole, verb="inpaint")
    answer, calls = type(model.editor).answer, []

    def fails(self, *arguments):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(self, *arguments)

    monkeypatch.setattr(type(model.editor), "answer", fails)
    with pytest.raises(KeyboardInterrupt):
        run(model, jobs, out, verb="inpaint")
    monkeypatch.undo()
    # As a kill leaves it: pictures without results, and half a line.
    finished = len((out / "results.jsonl").read_text().splitlines())
    with open(out / "results.jsonl", "a") as file:
        file.write('{"id": "face4", "jo')
    counts = run(model, jobs, out, verb="inpaint")
    assert counts == {"done": 5 - finished, "failed": 0, "skipped": finished}
    assert (out / "results.jsonl").read_text() == (whole / "results.jsonl").read_text()
    for job in jobs:
        np.testing.assert_array_equal(edited(out, job.name), edited(whole, job.name))
    # Nothing is left to do, until a job changes or its picture is gone.
    assert run(model, jobs, out, verb="inpaint")["done"] == 0
    (out / "face1.png").unlink()
    changed = batch.read_jobs(photos, "inpaint", {"region": "hat", "k": 64})
    counts = run(model, [*jobs[:3], *changed[3:]], out, verb="inpaint")
    assert counts == {"done": 3, "failed": 0, "skipped": 2}
    assert list(rows(out)) == [job.name for job in jobs]


def test_two_hosts_share_the_jobs(model, photos, tmp_path, monkeypatch):
    jobs = batch.read_jobs(photos, "inpaint", {"region": "mouth", "k": 64})
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for host, done in ((0, 3), (1, 2)):
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        assert run(model, jobs, tmp_path / "out", verb="inpaint")["done"] == done
    names = sorted(p.name for p in (tmp_path / "out").glob("results*"))
    assert names == ["results-0-of-2.jsonl", "results-1-of-2.jsonl"]
    monkeypatch.undo()
    # One host knows what two have done.
    assert run(model, jobs, tmp_path / "out", verb="inpaint")["skipped"] == 5


def test_restoring_in_squares_and_tagging(model, photos, tmp_path, gptface_command):
    wide = np.concatenate([np.asarray(Image.open(photos / "face0.png"))] * 2, 1)
    damage = np.zeros(wide.shape[:2], np.uint8)
    damage[5:12, 5:75] = 255
    Image.fromarray(wide).save(photos / "wide.png")
    Image.fromarray(damage).save(photos / "damage.png")
    job = {"id": "wide", "image": "wide.png", "damage": "damage.png", "k": 64}
    path, out = jobs_file(photos, job), tmp_path / "restored"
    (job,) = batch.read_jobs(path, "restore")
    run(model, [job], out, verb="restore")
    details = json.loads((out / "wide.json").read_text())
    assert len(details["squares"]) == 2 and details["job"] == "wide"
    outside = edited(out, "wide")[damage == 0]
    np.testing.assert_array_equal(outside, wide[damage == 0])


def test_the_command_line(tiny, photos, tmp_path, gptface_command, capsys):
    (photos / "face4.png").write_bytes(b"broken")
    command = ("edit", "--model", tiny / "model", "--jobs", photos, "--region", "mouth",
               "--text", "a man", "--guidance", "none", "--k", 64, "--samples", 1,
               "--format", "jpg", "--quiet")  # fmt: skip
    out = tmp_path / "out"
    assert gptface_command(*command, "--out", out) == 2
    assert "1 jobs failed" in capsys.readouterr().err
    assert len(list(out.glob("*.jpg"))) == 4
    (photos / "face4.png").unlink()
    (photos / "face5.jxl").touch()
    assert gptface_command(*command, "--out", out) == 0
    said = capsys.readouterr()
    assert "0 done, 0 failed, 4 finished before" in said.out
    assert f"'{photos}': skipped: 1 .jxl" in said.err
    for wrong, said in (
        (("--out", out, "--jobs", photos / "none.jsonl"), "No such file"),
        (("--out", out, "--batch-size", 0), "batch_size is 0"),
    ):
        assert gptface_command(*command, *wrong) == 2
        assert said in capsys.readouterr().err
    assert gptface_command("edit", "--text", "a man", "--out", out / "x.png") == 2
    assert "--image is missing" in capsys.readouterr().err


def test_two_jobs_of_one_name_are_refused(photos):
    line = {"id": "a", "image": "face0.png", "region": "mouth"}
    with pytest.raises(UserError, match="two jobs of .* have the id 'a'"):
        batch.read_jobs(jobs_file(photos, line, line), "inpaint")
    with pytest.raises(UserError, match="holds no jobs"):
        batch.read_jobs(jobs_file(photos, ""), "inpaint")


@pytest.mark.slow
def test_devices_and_processes_share_the_jobs(model, tiny, photos, tmp_path):
    defaults = {"text": "a man", "region": "mouth", "k": 16, "samples": 2}
    run(model, batch.read_jobs(photos, "edit", defaults), tmp_path / "one")
    code = "import sys; from gptface_jax.cli.main import main; sys.exit(main())"
    command = ("edit", "--model", tiny / "model", "--jobs", photos, "--region", "mouth",
               "--text", "a man", "--k", 16, "--samples", 2, "--batch-size", 1,
               "--quiet")  # fmt: skip

    def start(out, devices, *more):
        arguments = map(str, (*command, "--out", tmp_path / out, *more))
        environment = {**os.environ, "XLA_FLAGS": simulated_devices.flags(devices)}
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments], env=environment
        )

    port = simulated_devices.free_port()
    pair = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", 2)
    started = [start("eight", 8)]
    started += [start("pair", 2, *pair, "--process-id", i) for i in range(2)]
    assert [process.wait(timeout=600) for process in started] == [0, 0, 0]
    names = sorted(p.name for p in (tmp_path / "pair").glob("results*"))
    assert names == ["results-0-of-2.jsonl", "results-1-of-2.jsonl"]
    for i in range(5):
        one, eight, two = (
            edited(tmp_path / d, f"face{i}") for d in ("one", "eight", "pair")
        )
        np.testing.assert_array_equal(one, eight)
        np.testing.assert_array_equal(one, two)


def test_any_names_of_a_folder_make_ids(photos):
    for name in ("_DSC1", "IMG 1", "IMG-1", "j\u00fcrgen", "face1"):
        (photos / f"{name}.jpg").touch()
    names = [job.name for job in batch.read_jobs(photos, "edit", {"text": "x"})]
    assert not any(job.error for job in batch.read_jobs(photos, "edit", {"text": "x"}))
    assert sorted(names) == sorted([
        "DSC1", "IMG-1", f"IMG-1-{names.index('IMG-1') + 2}", "j\u00fcrgen", "face0",
        "face1.jpg", "face1.png", "face2", "face3", "face4",
    ])  # fmt: skip


def test_what_a_line_says_of_the_place_replaces_the_default(photos):
    line = '{"image": "face0.png", "box": [0, 0, 9, 9], "text": "a\u2028man"}'
    path = photos / "jobs.jsonl"
    path.write_text("\ufeff" + line + "\n", "utf-8")
    defaults = {"region": "hat", "area": 0.2, "seed": 3}
    (job,) = batch.read_jobs(path, "edit", defaults)
    assert not job.error and not {"region", "area"} & set(job.values)
    assert job.values["box"] == (0, 0, 9, 9) and job.values["seed"] == 3


def test_a_file_that_changed_is_another_job(photos):
    lines = [{"image": "face0.png", "mask": m} for m in ("face1.png", "none.png")]
    before = batch.read_jobs(jobs_file(photos, *lines), "inpaint")
    digests = [job.digest for job in before]
    assert digests == [
        job.digest for job in batch.read_jobs(photos / "jobs.jsonl", "inpaint")
    ]
    (photos / "face1.png").write_bytes((photos / "face2.png").read_bytes())
    after = batch.read_jobs(photos / "jobs.jsonl", "inpaint")
    assert after[0].digest != digests[0] and after[1].digest == digests[1]
    assert before[0].digest == digests[0]  # of what was begun with


def test_photos_of_the_command_are_those_of_jobs_that_name_none(
    tiny, photos, tmp_path, gptface_command, monkeypatch
):
    def run(model, jobs, *given, **options):
        found.extend(jobs)
        return {"done": len(jobs), "failed": 0, "skipped": 0}

    found = []
    monkeypatch.setattr(batch, "run", run)
    base = ("--model", tiny / "model", "--out", tmp_path / "out", "--jobs")
    second = str(photos / "face4.png")
    assert gptface_command("stitch", *base, photos, "--second", second) == 0
    assert len(found) == 5 and not any(job.error for job in found)
    assert [job.values["second"] for job in found] == [second] * 5
    assert found[1].values["first"] == str(photos / "face1.png")
    found.clear()
    lines = jobs_file(photos, {"region": "hat"}, {"image": "face1.png"})
    assert gptface_command("inpaint", *base, lines, "--image", second) == 0
    images = [os.path.basename(job.values["image"]) for job in found]
    assert images == ["face4.png", "face1.png"]


def test_null_and_nan_are_not_given_and_types_are_checked_first(photos):
    """A sentence was "None" or "nan", and "false" was true."""
    defaults = {"text": "a hat", "region": "hat", "seed": 3}
    good = {"image": "face0.png"}
    null = {"id": None, "text": None, "mask": None, "samples": float("nan")}
    jobs = batch.read_jobs(
        jobs_file(
            photos,
            {**good, **null},
            {**good, "samples": 4.0, "k": 2.0, "box": [0, 0, 9.0, 9], "cfg": 2},
            *({**good, k: v} for k, v in WRONG),
            {"image": None},
        ),
        "edit",
        defaults,
    )
    plain, whole, *wrong, absent = jobs
    path = str(photos / "face0.png")
    assert (plain.name, plain.values) == ("000001", {**defaults, "image": path})
    numbers = {"samples": 4, "k": 2, "box": (0, 0, 9, 9), "cfg": 2}
    assert not whole.error and numbers.items() <= whole.values.items()
    assert {type(whole.values[k]) for k in ("samples", "k")} == {int}
    for (name, _), job in zip(WRONG, wrong, strict=True):
        assert job.error.startswith(f"{name} is "), job.error
    assert "'image' is missing" in absent.error


WRONG = (
    ("text", ["a woman", "blond"]), ("text", 3), ("text", True), ("text", {}),
    ("region", 1), ("samples", 4.5), ("samples", "4"), ("samples", True), ("grow", "1"),
    ("composite", "false"), ("composite", 1), ("mask", 3), ("image", ["face0.png"]),
    ("box", [0, 0, 9]), ("box", "0,0,9,9"), ("seed", "x"), ("k", [1]), ("cfg", "2"),
    ("face", [1]), ("align", "no"), ("area", "0.2"), ("guidance", 1), ("trace", 0),
)  # fmt: skip


def test_a_picture_to_work_on_is_not_overwritten(model, photos):
    before = (photos / "face0.png").read_bytes()
    line = {"id": "face0", "image": "face0.png", "text": "a man", "region": "hat"}
    jobs = batch.read_jobs(jobs_file(photos, {**line, **QUICK}), "edit")
    assert run(model, jobs, photos) == {"done": 1, "failed": 1, "skipped": 0}
    assert "would be lost" in rows(photos)["face0"]["error"]
    assert (photos / "face0.png").read_bytes() == before


def test_another_format_is_another_result(model, photos, tmp_path):
    jobs = batch.read_jobs(photos, "edit", {"text": "a", "region": "hat", **QUICK})
    run(model, jobs[:1], tmp_path / "out")
    again = {"done": 0, "failed": 0, "skipped": 1}
    assert run(model, jobs[:1], tmp_path / "out") == again
    counts = run(model, jobs[:1], tmp_path / "out", strips=True)
    assert counts["done"] == 1 and (tmp_path / "out" / "face0.strip.png").is_file()
    assert run(model, jobs[:1], tmp_path / "out", strips=True) == again


@pytest.mark.slow
def test_another_precision_is_another_result(model, tiny, photos, tmp_path):
    jobs = batch.read_jobs(photos, "edit", {"text": "a", "region": "hat", **QUICK})
    run(model, jobs[:1], tmp_path / "out")
    rough = gptface_jax.load(tiny / "model", dtype="bfloat16")
    again = {"done": 0, "failed": 0, "skipped": 1}
    assert run(rough, jobs[:1], tmp_path / "out")["done"] == 1
    assert run(rough, jobs[:1], tmp_path / "out") == again


def test_two_commands_into_one_folder(model, photos, tmp_path):
    jobs = batch.read_jobs(photos, "edit", {"text": "a", "region": "hat", **QUICK})
    out = tmp_path / "out"
    with locks.held(out / "results.lock", "runs jobs", "wait"):
        with pytest.raises(UserError, match="in use: process .*to another folder"):
            run(model, jobs[:1], out)
        names = {p.name for p in out.iterdir()}
        assert names == {"results.lock", "results.lock.json"}
    assert run(model, jobs[:1], out)["done"] == 1
    assert {p.suffix for p in out.iterdir()} == {".png", ".json", ".jsonl"}


def test_two_writers_of_one_picture_do_not_meet(tmp_path):
    """The name of the unfinished file was the same for both."""
    path = tmp_path / "a.png"
    images = [np.full((300, 300, 3), value, np.uint8) for value in (0, 255)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: pictures.save(images[i % 2], path), range(64)))
    found = np.asarray(Image.open(path))
    assert any((found == image).all() for image in images)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_names_of_any_script_stay_and_the_source_is_named(model, photos, tmp_path):
    for i, name in enumerate(("\u5f20\u4e09", "\u674e\u56db", "\u0939\u093f\u0928")):
        (photos / f"face{i}.png").rename(photos / f"{name}.png")
    (photos / "face3.png").rename(photos / f"{'x' * 80}{chr(0x5F20) * 50}.png")
    (photos / "face4.png").rename(photos / "Ju\u0308rgen.png")  # as macOS stores it
    jobs = batch.read_jobs(photos, "edit", {"text": "a", "region": "hat", **QUICK})
    names = [job.name for job in jobs]
    assert names[0] == "J\u00fcrgen" and len(set(names)) == 5
    assert {"\u5f20\u4e09", "\u674e\u56db", "\u0939\u093f\u0928"} < set(names)
    assert not any(job.error for job in jobs)
    assert max(len(name.encode()) for name in names) <= 190
    out = tmp_path / "out"
    assert run(model, jobs[:3], out) == {"done": 3, "failed": 0, "skipped": 0}
    source = {"image": "Ju\u0308rgen.png"}
    assert rows(out)["J\u00fcrgen"]["source"] == source
    assert json.loads((out / "J\u00fcrgen.json").read_text())["source"] == source
    assert run(model, jobs[:3], out)["skipped"] == 3
    # The same id and the same file in either form.
    line = {"text": "a", "region": "hat", "image": "J\u00fcrgen.png"}
    first, second = {**line, "id": "J\u00fcrgen"}, {**line, "id": "Ju\u0308rgen"}
    (job,) = batch.read_jobs(jobs_file(photos, first), "edit")
    assert os.path.isfile(job.values["image"])
    with pytest.raises(UserError, match="two jobs of .* have the id"):
        batch.read_jobs(jobs_file(photos, first, second), "edit")
    for wrong in ("-a", "a/b", "a b", "\u5f20" * 70, ""):
        (job,) = batch.read_jobs(jobs_file(photos, {**line, "id": wrong}), "edit")
        assert "names no file" in job.error, wrong


def test_a_folder_of_more_than_photos(photos):
    for name in ("._face0.png", ".DS_Store", "notes.txt", "new.jxl"):
        (photos / name).touch()
    for name in ("__MACOSX", "album.jpg"):
        (photos / name).mkdir()
    jobs = batch.read_jobs(photos, "edit", {"text": "a"})
    assert [job.name for job in jobs] == [f"face{i}" for i in range(5)]
