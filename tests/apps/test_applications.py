"""Restoration, stitching, sampling and tagging, by the smallest model of the way."""

import json

import jax
import numpy as np
import pytest
from compiled import apply
from PIL import Image, ImageDraw

from gptface_jax.core.errors import UserError
from gptface_jax.data import image, synthetic
from gptface_jax.pipelines import region_proposal
from gptface_jax.systems.gptface import predict


@pytest.fixture(scope="module")
def faces():
    source = synthetic.SyntheticFaces(size=96, count=9, seed=5)
    return [source[i].image for i in range(2)]


def test_scratches_of_a_wide_photo_are_painted_over(model, faces):
    photo = np.concatenate(faces, axis=1)
    old = Image.fromarray(photo)
    for start in (10, 110):
        line = [(start, 20), (start + 30, 60), (start + 60, 70)]
        ImageDraw.Draw(old).line(line, fill=(250, 250, 250), width=2)
    old = np.asarray(old)
    restored = model.restore(old, kind="bright", thin=0)
    after = np.asarray(restored.image)
    np.testing.assert_array_equal(after[~restored.mask], old[~restored.mask])
    share = f"{restored.mask.mean():.1%} of the photo was taken for scratches"
    assert restored.details["notes"][-1].startswith(share)
    assert len(restored.details["squares"]) == 2
    truth = (old != photo).any(-1)
    assert restored.mask[truth].mean() > 0.6
    assert after[truth & restored.mask].mean() < old[truth & restored.mask].mean()
    # The mask may be given, and all that was drawn be shown.
    marked = Image.fromarray(truth)
    wide = model.restore(old, marked, paint="tokens", thin=0)
    assert (wide.mask >= truth).all() and wide.mask.sum() > 3 * truth.sum()
    # Closed smoothly they are nearly gone; the model has nothing to draw.
    closed = model.restore(old, marked)
    assert (
        closed.details["tokens"] == 0 and closed.details["mask"]["thin"] == truth.sum()
    )
    error = np.abs(np.asarray(closed.image).astype(int) - photo)[truth].mean()
    assert error < 0.3 * np.abs(old.astype(int) - photo)[truth].mean()
    np.testing.assert_array_equal(np.asarray(closed.image)[~truth], photo[~truth])
    with pytest.raises(UserError, match="thin is -1"):
        model.restore(old, marked, thin=-1)
    left = np.zeros((96, 192), np.uint8)
    left[:, :96] = 255
    for torn in (np.full_like(left, 255), left):
        with pytest.raises(UserError, match="covers the whole picture"):
            model.restore(old, torn)  # a square of it would come from nothing
    with pytest.raises(UserError, match="no dark scratch was found; mark the damage"):
        model.restore(np.full((64, 64, 3), 120, np.uint8), kind="dark")
    with pytest.raises(UserError, match="paint is 'all'"):
        model.restore(old, paint="all")
    with pytest.raises(UserError, match="needs a text"):
        model.restore(old, guidance="ascent")


def test_edits_follow_one_another(model, faces, tmp_path, gptface_command, tiny):
    quick = {"guidance": "none", "samples": 1, "k": 64}
    first = model.edit(faces[0], "a man", region="mouth", **quick)
    second = model.edit(first, "a woman", region="hat", **quick)
    np.testing.assert_array_equal(np.asarray(second.before), np.asarray(first.image))
    (earlier,) = second.details["chain"]
    assert earlier["text"] == "a man" and "chain" not in first.details
    # Sidecar and metadata tell it too, of the picture in every format.
    for name in ("a.png", "a.jpg"):
        path = second.save(tmp_path / name, strip=False)[0]
        for source in (path, path.read_bytes(), Image.open(path)):
            third = model.inpaint(source, region="nose", k=64)
            texts = [step["text"] for step in third.details["chain"]]
            assert texts == ["a man", "a woman"], (name, type(source))
        path.with_suffix(".json").unlink()
    Image.fromarray(faces[0]).save(tmp_path / "face.png")
    command = ("edit", "--model", tiny / "model", "--image", tmp_path / "face.png",
               "--region", "mouth", "--text", "a man", "--guidance", "none",
               "--samples", 1, "--k", 64, "--out", tmp_path / "both.png")  # fmt: skip
    assert gptface_command(*command, "--then", "hat", "a woman") == 0
    both = json.loads((tmp_path / "both.json").read_text())
    assert both["text"] == "a woman" and both["chain"][0]["text"] == "a man"
    np.testing.assert_array_equal(Image.open(tmp_path / "both.png"), second.image)


def test_two_photos_are_joined_along_any_seam(model, faces):
    first, second = faces
    joined = model.stitch(first, second, colours=False)
    after, band = np.asarray(joined.image), joined.mask
    assert joined.details["notes"] == []
    tall = [np.pad(face, ((0, 40), (0, 0), (0, 0))) for face in faces]
    (note,) = model.stitch(*tall, colours=False).details["notes"]
    assert "outside the square" in note
    # The square goes where the seam is.
    wide = [np.pad(face, ((0, 0), (0, 96), (0, 0))) for face in faces]
    for at in (0.25, 0.5, 0.9):
        result = model.stitch(*wide, at=at, colours=False)
        assert result.details["notes"] == []
        assert result.mask[:, int(at * 192)].all()
    assert band[:, 48].all() and not band[:, :30].any() and not band[:, 66:].any()
    np.testing.assert_array_equal(after[:, :30], first[:, :30])
    np.testing.assert_array_equal(after[:, 66:], second[:, 66:])
    lower = model.stitch(first, second, seam="horizontal", at=0.75, colours=False)
    assert lower.mask[72].all() and not lower.mask[:50].any()
    # A dark second photo gets the colours of the first.
    dark = (second // 4).astype(np.uint8)
    matched = np.asarray(model.stitch(first, dark).before)[:, 60:]
    assert matched.mean() > dark[:, 60:].mean() + 20
    seam = np.zeros((96, 96), np.uint8)
    seam[20:60, 20:60] = 255
    inside = model.stitch(first, Image.fromarray(second).resize((50, 40)), seam=seam)
    assert inside.mask[40, 20] and not inside.mask[40, 40]
    for wrong, said in (
        ({"at": 1.0}, "at is 1.0"),
        ({"band": 0}, "band is 0"),
        ({"seam": np.full((96, 96), 255, np.uint8)}, "nothing of the first"),
        ({"at": 0.9999}, "nothing of the second"),
        ({"band": 50}, "covers the whole picture"),
    ):
        with pytest.raises(UserError, match=said):
            model.stitch(first, second, **wrong)


@pytest.mark.slow
def test_faces_are_drawn_from_nothing_and_differ(model):
    drawn = model.sample(3, seed=4)
    arrays = [np.asarray(x) for x in drawn]
    assert arrays[0].shape == (model.editor.size,) * 2 + (3,)
    assert (arrays[0] != arrays[1]).any() and (arrays[1] != arrays[2]).any()
    again = model.sample(2, seed=4)
    np.testing.assert_array_equal(np.asarray(again[1]), arrays[1])
    with pytest.raises(UserError, match="count is 0"):
        model.sample(0)


def test_tags_are_distinct_words_in_order_of_their_score(model, faces):
    tags = model.tag(faces[0], 6)
    words = [tag.word for tag in tags]
    assert 0 < len(words) <= 6 and len(set(words)) == len(words)
    assert all(word.isalpha() and not word.startswith("#") for word in words)
    assert not {"a", "with", "no"} & set(words)
    scores = [tag.score for tag in tags]
    assert scores == sorted(scores, reverse=True)
    for tag in tags:
        assert tag.score == pytest.approx(tag.probability * tag.match, rel=1e-5)
        assert tag.match == pytest.approx(model.match(faces[0], [tag.word])[0], 1e-4)
    assert model.tag(faces[0], 6) == tags


def test_captions_have_the_length_asked_for(model, faces):
    written = model.caption(faces[0], 5, samples=4)
    matches = [match for _, match in written]
    assert matches == sorted(matches, reverse=True)
    assert written and all(0 < len(text.split()) <= 5 for text, _ in written)
    with pytest.raises(UserError, match="words is 99; this model writes 1 to"):
        model.caption(faces[0], 99)


@pytest.mark.slow
def test_a_region_is_proposed_where_the_picture_contradicts_the_text(model, faces):
    wide = np.concatenate(faces, axis=1)
    mask = model.propose(wide, "a man with a hat", area=0.25)
    assert mask.shape == (96, 192) and not mask[:, :48].any()
    assert 0 < mask.sum() <= 0.3 * 96 * 96
    # Hats show at the top; of what is named as little as that takes.
    assert mask[:32].mean() > 2 * mask[64:].mean()
    assert model.propose(wide, "a man with a moustache").sum() < mask.sum() / 2
    anywhere = model.propose(wide, "a man with a hat", area=0.25, aligned=False)
    assert anywhere.any() and (anywhere != mask).any()
    slope = model.propose(wide, "a man with a hat", area=0.25, method="gradient")
    assert slope.any() and (slope != mask).any()
    edit = model.edit(wide, "a man with a hat", area=0.25, k=64, samples=1)
    np.testing.assert_array_equal(edit.mask, mask)
    assert edit.details["mask"]["proposed"] == 0.25
    assert "proposed by the model" in edit.details["notes"][0]
    with pytest.raises(UserError, match="method 'magic' is none of"):
        model.propose(wide, "a hat", method="magic")


def test_likelihood_saliency_is_how_two_texts_disagree_about_hidden_codes(model, faces):
    import jax.numpy as jnp

    editor = model.editor
    small = image.fit(faces[0], editor.size)[None]
    same = region_proposal.saliency(editor, small, "a hat", "a hat", "likelihood")
    np.testing.assert_allclose(same, 0, atol=1e-6)
    found = region_proposal.saliency(editor, small, "a hat", "a man", "likelihood")
    module, params = editor.module, editor.params
    layout = editor.layout
    n, where = layout.num_image_tokens, layout.image_slice
    tokens = editor.tokens(
        np.repeat(editor.image_ids(small), 2, axis=0), ["a hat", "a man"]
    )
    order = np.asarray(jax.random.uniform(jax.random.key(0), (8, n))).argsort(1)
    total = np.zeros(n)
    for half in [*(order < n // 2), *(order >= n // 2)]:
        hidden = np.zeros(layout.length, bool)
        hidden[where] = half
        seen = jnp.where(hidden, editor.text_tokenizer.mask_id, tokens)
        states = apply(module, {"params": params}, seen, jnp.ones(2, int))
        logits = apply(module, {"params": params}, states, method="image_logits")
        p, q = np.asarray(jax.nn.softmax(logits[:, where]), np.float64)
        total += half * (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(found.ravel(), total / 8, rtol=1e-3, atol=1e-6)
    assert found.min() >= -1e-6 and found.max() > 0


@pytest.mark.slow
def test_saliency_is_what_hiding_a_piece_does_to_the_match(model, faces):
    editor = model.editor
    small = np.asarray(Image.fromarray(faces[0]).resize((editor.size,) * 2))[None]
    found = region_proposal.saliency(editor, small, "a hat", "a man", "occlusion")
    ids = editor.image_ids(small)
    module, params = editor.module, editor.params
    layout = editor.layout

    def odds(text, hide):
        tokens = np.array(editor.tokens(ids, [text]))
        codes = tokens[:, layout.image_slice].reshape(layout.grid)
        if hide:
            codes[2:5, 4:7] = editor.text_tokenizer.mask_id
        tokens[:, layout.image_slice] = codes.reshape(1, -1)
        p = np.exp(float(predict.itm_log_prob(module, params, tokens)[0]))
        return np.log(p / (1 - p))

    by_hand = [odds(t, True) - odds(t, False) for t in ("a hat", "a man")]
    assert found[3, 5] == pytest.approx(by_hand[0] - by_hand[1], abs=1e-4)


def test_the_largest_pieces_of_what_stands_out():
    salience = np.zeros((8, 8))
    salience[1:5, 1:5] = 1.0
    salience[7, 7] = 3.0  # alone
    mask = region_proposal.mask_tokens(salience, 0.25)
    assert mask[2:4, 2:4].all() and mask.sum() <= 20
    prior = np.zeros((8, 8))
    prior[:, 4:] = 1.0
    for area in (0.1, 0.6):  # more than there is, too
        assert not region_proposal.mask_tokens(salience, area, prior)[:, :4].any()


def test_the_commands(tiny, faces, tmp_path, capsys, gptface_command):
    for name, face in zip("ab", faces):
        Image.fromarray(face).save(tmp_path / f"{name}.png")
    damaged = np.zeros((96, 96), np.uint8)
    damaged[30:33] = 255
    Image.fromarray(damaged).save(tmp_path / "damage.png")
    first = tmp_path / "a.png"
    base = ("--model", tiny / "model", "--decode", "k=16")
    run = gptface_command
    out = ("--out", tmp_path / "r.png")
    mark = ("--damage", tmp_path / "damage.png")
    assert run("restore", *base, "--image", first, *mark, *out) == 0
    assert (tmp_path / "r.strip.png").is_file()
    assert json.loads((tmp_path / "r.json").read_text())["decode"]["k"] == 16
    assert run("restore", *base, "--image", first, *mark, "--out", first) == 2
    assert "write to another file" in capsys.readouterr().err
    both = ("--first", first, "--second", tmp_path / "b.png")
    assert run("stitch", *base, *both, "--out", tmp_path / "s.png") == 0
    sheet = tmp_path / "sheet.png"
    assert run("sample", *base, "--count", 2, "--out", sheet) == 0
    assert "generative model" in Image.open(sheet).text["Comment"]
    capsys.readouterr()
    told = ("--text", "a man", "--text", "glasses", "--json", tmp_path / "t.json")
    assert run("tag", *base, "--image", first, *told) == 0
    said = capsys.readouterr().out.splitlines()
    assert sum(not line.startswith("note:") for line in said) == 2
    found = json.loads((tmp_path / "t.json").read_text())["found"]
    assert [row["text"] for row in found] == ["a man", "glasses"]
    assert run("tag", "--model", tiny / "model", "--image", first, "--count", 3) == 0
    said = capsys.readouterr().out.splitlines()
    words = [line for line in said if not line.startswith("note:")]
    assert 0 < len(words) <= 3 and len(words[0].split()) == 4
