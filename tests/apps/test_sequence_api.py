"""A Talk2Face from its training run to questions, captions, faces and jobs."""

import dataclasses
import importlib
import json
import math
import types

import numpy as np
import pytest
from PIL import Image

import gptface_jax
from gptface_jax.apps import batch, sequence_api
from gptface_jax.apps.sequence_api import Talk2Face
from gptface_jax.cli import _jobs
from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record
from gptface_jax.data.task_examples import TaskTransform
from gptface_jax.evaluate import captions
from gptface_jax.experiments import opening, training
from gptface_jax.pipelines import provenance, rows
from gptface_jax.pipelines.answers import Answer
from gptface_jax.pipelines.compositing import Blend
from gptface_jax.pipelines.sequence_model import GenerateConfig
from gptface_jax.protocols import editors
from gptface_jax.protocols.records import open_records, pictures_of

PHOTO = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tiny, gptface_command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk2face")
    tokens = {
        "kind": "mixture",
        "sources": [
            {"kind": "tokens", "path": f"{tiny}/tokens"},
            {"kind": "tokens", "path": f"{folder}/pairs"},
        ],
    }
    steps = (
        ("tokenize", "--images", "synthetic_edits", "--limit", 16, "--quiet",
         "--data", "size=32", "--tokenizer", tiny / "vqgan", "--out", folder / "pairs"),
        ("train", "--quiet", "--config", "configs/talk2face/faces64.py:tiny_edits",
         "--workdir", folder / "run", "--config.data.image_ids=cache",
         f"--config.data.train={tokens}", f"--config.data.eval={tokens}",
         "--config.total_steps=1"),
        ("export", "--run", folder / "run", "--tokenizer", tiny / "vqgan",
         "--out", folder / "model"),
    )  # fmt: skip
    for arguments in steps:
        assert gptface_command(*arguments) == 0, arguments
    return folder


@pytest.fixture(scope="module")
def talker(folder):
    return gptface_jax.load(folder / "model")


def test_a_run_and_its_model_directory_answer_alike(folder, tiny, talker):
    run = gptface_jax.load(folder / "run", tokenizer=tiny / "vqgan")
    assert isinstance(talker, Talk2Face) and isinstance(run, Talk2Face)
    assert talker.size == run.size and talker.learnt == run.learnt
    first, second = (m.ask(PHOTO, "gender", align=False) for m in (talker, run))
    assert first.question == second.question == "synthetic gender"
    # Of bfloat16 weights and float32 ones.
    assert abs(first.confidence - second.confidence) < 0.02
    with pytest.raises(UserError, match="transformer alone; give its VQGAN"):
        gptface_jax.load(folder / "run")


def test_everything_is_answered(talker):
    found = talker.answers(PHOTO, align=False)
    assert [a.question for a in found] == [q.name for q in talker.learnt.questions]
    for answer in found:
        assert answer.value is not None and 0 < answer.confidence <= 1
    looked, plain = [], Talk2Face.square

    def square(*arguments):
        looked.append(arguments)
        return plain(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Talk2Face, "square", square)
        some = talker.answers(PHOTO, ["smiling", "gender"], align=False)
    assert [a.question for a in some] == ["synthetic smiling", "synthetic gender"]
    assert all(answer in found for answer in some) and len(looked) == 1
    assert talker.attention(PHOTO, "gender", align=False).size == (256, 256)
    weighed = talker.ask(PHOTO, "gender", score="mean", prior=True, align=False)
    plain = talker.ask(PHOTO, "gender", align=False)
    assert weighed.probabilities != plain.probabilities
    with pytest.raises(UserError, match="leave them out where the model writes"):
        talker.answers(PHOTO, closed=False, prior=True, align=False)
    # Its pictures told no frame: that is said, not passed over.
    with pytest.warns(UserWarning, match="central square was taken as it is"):
        talker.ask(PHOTO, "gender")
    with pytest.raises(UserError, match="did you mean 'gender'"):
        talker.ask(PHOTO, "gendr", align=False)


def test_captions(talker):
    ((text, chance),) = talker.caption(PHOTO, align=False)
    assert isinstance(text, str) and 0 < chance <= 1
    many = talker.caption(PHOTO, 4, seed=3, align=False)
    assert many == talker.caption(PHOTO, 4, seed=3, align=False)
    assert [c for _, c in many] == sorted((c for _, c in many), reverse=True)
    with pytest.raises(UserError, match="samples is 0"):
        talker.caption(PHOTO, 0, align=False)
    shown = []

    def longest(pictures, sentence):
        shown.append(pictures)
        return np.array([len(sentence)])

    ranked = talker.caption(PHOTO, 4, seed=3, align=False, rank_by=longest)
    assert ranked == sorted(many, key=lambda said: -len(said[0]))
    assert shown[0].shape == (1, talker.size, talker.size, 3)
    with pytest.raises(UserError, match="chooses among samples"):
        talker.caption(PHOTO, rank_by=longest, align=False)
    with pytest.raises(UserError, match="image is 3"):
        talker.caption(3)


@pytest.mark.slow
def test_faces_after_words(talker, tmp_path):
    two = talker.synthesize("a man", "Smiling=true; age=30", 2, seed=1)
    assert two.details["text"] == "a man; synthetic smiling: true; age: 30"
    (same,) = talker.synthesize("a man", {"Smiling": True, "age": 30}, 1, seed=1)
    assert np.array_equal(np.asarray(two[0]), np.asarray(same))
    assert not np.array_equal(np.asarray(two[0]), np.asarray(two[1]))
    picture, sidecar = two.save(tmp_path / "two.png")
    said = json.loads(sidecar.read_text())
    assert said["edited"] is False and said["model"] == talker.digest
    assert provenance.details_of(picture.read_bytes())["seed"] == 1
    (best,) = talker.synthesize("a man", count=1, seed=1, candidates=3)
    three = talker.synthesize("a man", count=3, seed=1)
    assert any(np.array_equal(np.asarray(best), np.asarray(one)) for one in three)
    for arguments, message in (
        ({}, "nothing to follow"),
        ({"text": "a man", "face": 1}, "face is 1 and align True, and there is no"),
        ({"text": "a man", "align": False}, "and align False, and there is no photo"),
        ({"text": "a man", "candidates": 0}, "candidates is 0"),
        ({"text": "a man", "candidates": 2, "rank_by": 3}, "rank_by is 3; give"),
        ({"text": "a man", "candidates": 2, "rank_by": "x"}, "model 'x'"),
        ({"text": "a man", "rank_by": "demo"}, "set them to 2 or more"),
        (
            {
                "attributes": "Chubby=false",
                "candidates": 2,
                "rank_by": print,
                "temprature": 1,
            },
            "no sentence to rank by",  # before anything is drawn
        ),
        ({"text": "a man", "count": 0}, "count is 0"),
        ({"attributes": "Smilling=true"}, "did you mean 'smiling'"),
        ({"attributes": "Smiling"}, "no NAME=VALUE"),
        ({"attributes": {"Smiling": "perhaps"}}, "'perhaps' of 'Smiling' is none of"),
        ({"attributes": 3}, "attributes is 3; give a mapping or a text"),
        ({"text": "a man", "temprature": 1}, "temprature"),
        ({"text": "\u4e00"}, "no word of the text"),
    ):
        with pytest.raises(UserError, match=message):
            talker.synthesize(**arguments)
    with pytest.warns(UserWarning, match="cut to its first"):
        talker.synthesize("a man " * 60)


@pytest.mark.slow
def test_candidates_are_ranked_by_what_each_scorer_reads(talker):
    """Keys and values by the model that learnt them, plain words by any other."""
    asked = "a man", {"Smiling": True}
    wanted, by = sequence_api._ranked_by(talker, *asked, None)
    assert list(wanted) == ["a man", "synthetic smiling: true"] and by == "probability"
    other = types.SimpleNamespace(editor=object(), digest="d")
    wanted, by = sequence_api._ranked_by(talker, *asked, other)
    assert list(wanted) == ["a man", "a person smiling"] and by == "matching of d"
    best = talker.synthesize(*asked, candidates=2)
    assert best.details["ranking"]["sentences"] == ["a man", "synthetic smiling: true"]


@pytest.mark.slow
def test_a_photo_drawn_anew(talker, folder, tmp_path):
    asked = {"image": PHOTO, "align": False, "seed": 1}
    one, two = talker.synthesize("a man", "Smiling=true", 2, **asked)
    (same,) = talker.synthesize("a man", "Smiling=true", **asked)
    assert np.array_equal(np.asarray(one), np.asarray(same))
    assert one.size == (talker.size,) * 2
    # The model sees what it has learnt from.
    ids = np.arange(math.prod(talker.grid), dtype=np.uint16).reshape(talker.grid) % 27
    pair = (Record(image_ids=ids), Record(image_ids=ids, text="a man"))
    config = talker.network.config
    transform = TaskTransform("edit", talker.tokenizer, config.vocab, config.length)
    example = transform(pair, np.random.default_rng(0))
    prefix, _ = talker.edit_prefix("to edit", ids.reshape(-1), "a man")
    wanted = example["tokens"][example["segment_ids"] == 1]
    np.testing.assert_array_equal(prefix[: len(wanted)], wanted)
    assert (prefix[len(wanted) :] == talker.tokenizer.pad_id).all()
    with pytest.warns(UserWarning, match="cut to its first"):
        drawn = talker.synthesize("a man " * 60, **asked)
    assert "cut to its first" in drawn.details["notes"][0]
    _, sidecar = drawn.save(tmp_path / "anew.png")
    assert json.loads(sidecar.read_text())["edited"] is True
    learnt = dataclasses.replace(talker.learnt, edits=False)
    without = gptface_jax.load(folder / "model")
    without.learnt = learnt
    with pytest.raises(UserError, match="not trained to draw after a picture"):
        without.synthesize("a man", **asked)


@pytest.mark.slow
def test_edits_drawn_anew_are_judged_like_others(talker):
    """Pasted, nothing outside the region changes; whole, it is as the model drew it."""
    spec = {"kind": "synthetic", "count": 3, "size": talker.size}
    records = open_records(spec, 3)
    photos = pictures_of(records, talker.size)
    task = editors.tasks(records, ["Smiling"], talker.size)[0]
    pasted = editors.by_redrawing(talker, batch_size=2)(photos, task, int)
    whole = editors.by_redrawing(talker, blend=Blend(composite=False))(
        photos, task, int
    )
    outside = ~task.regions[0]
    np.testing.assert_array_equal(pasted.images[:, outside], photos[:, outside])
    # However many are drawn at once; decoded by other programs, a level apart at most.
    np.testing.assert_allclose(np.int32(whole.raw), np.int32(pasted.raw), atol=1)
    np.testing.assert_array_equal(whole.images, whole.raw)
    assert len(pasted.seconds) == 2
    with pytest.raises(UserError, match="64 px, and the sequence model draws"):
        editors.by_redrawing(talker)(np.zeros((1, 64, 64, 3), np.uint8), task, int)


def test_jobs(talker, tmp_path):
    lines = [
        {"id": "a", "text": "a man", "count": 2},
        {"id": "b", "attributes": "Smiling=false"},
        {"id": "c", "attributes": {"Nose": True}},
        {"id": "d", "box": [0, 0, 1, 1]},
    ]
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    jobs = batch.read_jobs(path, "synthesize", kind=Talk2Face)
    options = {"verb": "synthesize", "progress": False}
    counts = batch.run(talker, jobs, tmp_path / "out", **options)
    assert counts == {"done": 4, "failed": 2, "skipped": 0}
    said = [*map(json.loads, (tmp_path / "out/results.jsonl").open())]
    assert [row.get("file") for row in said] == ["a.png", "b.png", None, None]
    assert "big nose" in said[2]["error"] and "'box' is no option" in said[3]["error"]
    again = batch.run(talker, jobs, tmp_path / "out", **options)
    assert again == {"done": 2, "failed": 2, "skipped": 2}


class Mumbling:
    """Answers with its question, which means nothing where it is a word of its own."""

    digest, dtype, OPTIONS = "digest", None, GenerateConfig
    several = False

    def ask(self, question: str) -> Answer:
        return Answer("toy mood", question, {"calm": "calm"}.get(question), 0.5)


def test_answers_of_jobs_that_mean_nothing_are_counted(tmp_path):
    words = ("calm", "blue", "calm", "green")
    jobs = [batch.Job(f"{n}", {"question": word}) for n, word in enumerate(words)]
    jobs.append(batch.Job("broken", {}, "an error"))
    options = {"verb": "ask", "progress": False}
    counts = batch.run(Mumbling(), jobs[:1], tmp_path / "a", **options)
    assert counts == {"done": 1, "failed": 0, "skipped": 0}
    counts = batch.run(Mumbling(), jobs, tmp_path / "b", **options)
    assert counts == {"done": 5, "failed": 1, "skipped": 0, "none": 2}


@pytest.mark.parametrize(
    ("verb", "given"),
    [("ask", {"question": "gender"}), ("caption", {"samples": 2})],
)
def test_photos_are_questioned_in_batches_and_as_alone(talker, tmp_path, verb, given):
    for name, pixels in (("a", PHOTO), ("b", PHOTO[::-1])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    jobs = batch.read_jobs(tmp_path, verb, {**given, "align": False}, kind=Talk2Face)
    asked, plain = [], rows.answer

    def answer(requests, size=1):
        asked.append(len(requests))
        return plain(requests, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "answer", answer)
        batch.run(talker, jobs, tmp_path / "out", verb=verb, progress=False)
    assert asked == [2, 2]  # codes, then what is said
    written = map(json.loads, (tmp_path / "out/results.jsonl").open())
    for job, row in zip(jobs, written, strict=True):
        seed = {"seed": job.seed} if verb == "caption" else {}
        alone = getattr(talker, verb)(**{**job.values, **seed})
        if verb == "ask":
            (found,) = row["found"]
            assert (found["text"], found["value"]) == (alone.text, alone.value)
            assert found["confidence"] == pytest.approx(alone.confidence, rel=1e-4)
            continue
        assert [text for text, _ in row["found"]] == [text for text, _ in alone]
        chances = [chance for _, chance in row["found"]]
        np.testing.assert_allclose(chances, [c for _, c in alone], rtol=1e-4)


def test_commands(folder, tmp_path, gptface_command, capsys):
    model = ("--model", folder / "model")
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    photo = ("--image", tmp_path / "photo.png", "--no-align")
    assert gptface_command("ask", *model, "--list") == 0
    assert "synthetic smiling" in capsys.readouterr().out
    answers = tmp_path / "answers.json"
    asked = ("--question", "smiling", "--json", answers)
    heat = ("--attention", tmp_path / "heat.png")
    assert gptface_command("ask", *model, *photo, *asked, *heat) == 0
    assert "synthetic smiling: " in capsys.readouterr().out
    (found,) = json.loads(answers.read_text())["found"]
    assert found["value"] in (True, False) and (tmp_path / "heat.png").is_file()
    assert gptface_command("caption", *model, *photo) == 0
    sheet = tmp_path / "sheet.png"
    wanted = ("--attributes", "Smiling=true", "-n", 2, "--out", sheet)
    assert gptface_command("synthesize", *model, *wanted) == 0
    assert sheet.is_file()
    jobs = ("--jobs", tmp_path, "--all", "--quiet", "--no-align", "--open")
    assert gptface_command("ask", *model, *jobs, "--out", tmp_path / "out") == 0
    row = json.loads((tmp_path / "out/results.jsonl").read_text().splitlines()[0])
    assert row["found"][0]["question"].startswith("synthetic")
    silent = sum(answer["value"] is None for answer in row["found"])
    assert ("answers are none" in capsys.readouterr().out) == (silent > 0)
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_jobs, "run", lambda *arguments: given.append(arguments))
        drawn = ("synthesize", "--jobs", tmp_path, "--out", sheet, "--no-align")
        assert gptface_command(*drawn, "--face", 2) == 0
    ((_, verb, arguments),) = given
    assert verb == "synthesize" and arguments["face"] == 2
    assert arguments["align"] is False and "image" not in arguments
    for arguments, message in (
        (("ask", *model, *photo), "either --question, or --all"),
        (("ask", *photo, "--question", "age"), "no 'ask'; give one of system talk2f"),
        (
            ("edit", *model, *photo, "--text", "a", "--out", sheet),
            "system gptface (--model), such as the bundled 'demo'",
        ),
        (("tag", *model, *jobs[:2], "--out", tmp_path), "no 'tag'; give one of"),
        (
            ("perceive", *photo, "--out", sheet),
            "faceptor (--model); none is bundled, and docs/faceptor.md says how to",
        ),
        (("synthesize", *model, "--out", sheet), "--text and --attributes are miss"),
        (
            ("synthesize", *model, "--text", "a", "--face", 2, "--out", sheet),
            "--face and --no-align say where the face of --image is",
        ),
        (("ask", *model, *jobs, "--json", answers), "neither --attention nor --json"),
        (
            ("caption", *model, *jobs[:2], "--json", answers),
            "--json is for one --image; --jobs write results.jsonl",
        ),
    ):
        assert gptface_command(*arguments) == 2
        assert message in capsys.readouterr().err


def test_a_damaged_folder_says_so(folder, tmp_path):
    import shutil

    for content, message in (("{", "makes no sense"), ("{}", "makes no sense")):
        copy = tmp_path / content.replace("{", "a").replace("}", "b")
        shutil.copytree(folder / "model", copy)
        (copy / "label_sets.json").write_text(content)
        with pytest.raises(UserError, match=message):
            gptface_jax.load(copy)
    (copy / "label_sets.json").unlink()
    with pytest.raises(UserError, match="cannot read.*label_sets.json"):
        gptface_jax.load(copy)


@pytest.mark.slow
def test_evaluations(tiny, folder, tmp_path, gptface_command, capsys):
    given = ("--model", folder / "model", "--images", "synthetic", "--limit", 6)
    kept = ("--samples", tmp_path / "rows.jsonl", "--out", tmp_path / "out.json")
    asked = ("--questions", "smiling", "gender", "age", "--balanced", "--quiet")
    asked += ("--probe", tiny / "tokens")
    assert gptface_command("evaluate", "answers", *given, *asked, *kept) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    found, probe = written["figures"], written["probe"]
    assert set(written["majority"]) == set(found)
    assert written["majority"]["synthetic smiling"]["balanced_accuracy"] == 0.5
    assert set(found) == {"synthetic smiling", "synthetic gender", "synthetic age"}
    assert probe["synthetic age"]["mae"] > 0
    assert 0 <= probe["synthetic smiling"]["balanced_accuracy"] <= 1
    assert found["synthetic gender"]["count"] == 6
    assert "probe\nsynthetic smiling" in capsys.readouterr().out
    rows = [*map(json.loads, (tmp_path / "rows.jsonl").open())]
    assert {row["question"] for row in rows} == set(found)
    assert gptface_command("evaluate", "captions", *given, "--quiet", *kept) == 0
    found = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert 0 <= found["accuracy"] <= 1 or found["checked"] == 0
    assert "richness" in capsys.readouterr().out
    wrong = ("--convention", "lfw", "--quiet")
    assert gptface_command("evaluate", "answers", *given, *wrong) == 2
    assert "not trained by the convention of 'lfw'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    run = tmp_path_factory.mktemp("judge") / "judge"
    config = load_config("configs/judge/faces64.py:tiny")
    training.train(config, run, progress=False)
    return run


@pytest.mark.slow
def test_drawn_faces_are_judged(folder, judge, tmp_path, gptface_command, capsys):
    out = tmp_path / "out.json"
    drawn = ("evaluate", "synthesis", "--model", folder / "model", "--judge", judge)
    asked = ("--convention", "synthetic", "--count", 4, "--quiet", "--out", out)
    pictures = ("--images", "synthetic", "--limit", 6)
    kept = ("--samples", tmp_path / "rows.jsonl", "--sheet", tmp_path / "sheet.png")
    assert gptface_command(*drawn, *asked, *pictures, *kept) == 0
    rows = [*map(json.loads, (tmp_path / "rows.jsonl").open())]
    of_smiles = [r["seen"]["Smiling"] for r in rows if r.get("attribute") == "Smiling"]
    assert len(of_smiles) == 8 and sum("picture" in row for row in rows) == 6
    sheet = (tmp_path / "sheet.png").read_bytes()
    assert "Smiling" in provenance.details_of(sheet)["text"]
    found = json.loads(out.read_text())
    assert sum(of_smiles[:4]) / 4 == found["attributes"]["Smiling"]["asked"]
    assert found["distribution"]["count"] == 6
    assert found["distribution"]["inception_style"] >= 1
    for row in found["attributes"].values():
        assert row["carried"] == (row["asked"] + 1 - row["opposite"]) / 2
    assert "| Smiling | " in capsys.readouterr().out
    assert gptface_command(*drawn, "--convention", "lfw") == 2
    assert "not trained by the convention of 'lfw'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_claims_of_one_model_are_measured(
    folder, judge, root, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(root / "benchmarks")
    claims = importlib.import_module("talk2face_claims")
    known = opening.open_network(judge, "judge").config.attributes[:2]
    monkeypatch.setattr(claims, "PAIRS", (known,))
    monkeypatch.setattr(claims, "QUESTIONS", ("gender", "expression"))
    # Java takes long to start, and has a test of its own.
    monkeypatch.setattr(captions, "meteor", lambda *_: (None, "left out"))
    out = tmp_path / "claims.json"
    given = f"--model {folder}/model --judge {judge} --limit 3 --count 3 --out {out}"
    claims.main([*given.split(), "--decode-seeds", "0", "1"])
    found = json.loads(out.read_text())
    assert set(claims.CLAIMS) <= set(found)
    assert found["T6"]["true"]["accuracy"] == 1
    assert found["T7"]["greedy"]["distance"] == pytest.approx(0, abs=1e-3)
    assert found["T7"]["all"]["distance"] > 0.01
    assert found["T9"]["synthetic gender"]["chosen, none"] == 0
    assert 0 < found["T10"]["centre"]["iou"] <= 1
    assert "T10\n|  | iou |" in capsys.readouterr().out
