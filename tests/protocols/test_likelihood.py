"""Matching and likelihoods, on the tiny model."""

import dataclasses
import itertools
import types

import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.protocols import calibration, matching
from gptface_jax.protocols import likelihood as protocol


def test_matching_and_likelihood(tiny, model):
    faces = SyntheticFaces(size=32, count=12, seed=5)
    figures = matching.matching(model, [faces[i] for i in range(12)])
    # Untrained: one answer to all pairs, or nearly.
    assert abs(figures["accuracy"] - 0.5) < 0.2 and figures["count"] == 24
    assert "Smiling" in figures["by_attribute"]
    with pytest.raises(UserError, match="1 pictures have one and the same text"):
        matching.matching(model, [faces[0]])
    with pytest.raises(UserError, match="did you mean 'Smiling'"):
        matching.matching(model, [faces[0]], attributes=["Smilling"])
    found = calibration.of_matching(model, [faces[i] for i in range(12)])
    assert found["count"] == 12 and found["as it is"]["nll"] > 0
    with pytest.raises(UserError, match="6 pairs say nothing; give at least 20"):
        calibration.of_matching(model, [faces[i] for i in range(3)])
    likelihood = protocol.likelihood(tiny / "gptface", records=8)
    assert {"image_nll", "image_unigram_nll", "text_unigram_nll"} <= set(likelihood)
    assert 0 < likelihood["image_unigram_nll"] < 6
    masked = protocol.masked(tiny / "gptface", (0.5, 1.0), records=8)
    assert list(masked) == ["span_50", "span_100", "random_50", "random_100"]
    # All of it is all of it, whatever the shape.
    assert masked["span_100"] == pytest.approx(masked["random_100"], rel=1e-5)
    assert masked["span_50"] != masked["random_50"]
    with pytest.raises(UserError, match=r"ratios are \[0.0\]"):
        protocol.masked(tiny / "gptface", (0.0,))
    for ratios in ((0.001, 0.5), (0.501, 0.504)):
        with pytest.raises(UserError, match="has to mask at least one of"):
            protocol.masked(tiny / "gptface", ratios)
    with pytest.raises(UserError) as missing:  # of what was given, not of a config
        protocol.likelihood(tiny / "gptface", {"kind": "tokens", "path": "nowhere"})
    assert "'nowhere'" in str(missing.value) and "--config" not in str(missing.value)


def test_what_helps_where_the_data_of_a_run_moved(tiny, monkeypatch):
    plain = protocol.opening.open_network
    changes = {}

    def opened(*arguments):
        network = plain(*arguments)
        config = {**network.meta["config"]}
        config["data"] = {**config["data"], **changes}
        return dataclasses.replace(network, meta={**network.meta, "config": config})

    monkeypatch.setattr(protocol.opening, "open_network", opened)
    gone = {"kind": "tokens", "path": "nowhere"}
    for change, likelihood, masked in (
        ({"train": gone}, "back there$", "back there$"),
        ({"eval": gone}, "back there, or give .* by --tokens", "give a run that has"),
        ({"eval": None}, "without data.eval; give .* by --tokens", "give a run that"),
    ):
        changes.clear()
        changes.update(change)
        with pytest.raises(UserError, match=likelihood):
            protocol.likelihood(tiny / "gptface")
        with pytest.raises(UserError, match=masked) as said:
            protocol.masked(tiny / "gptface")
        assert "--config" not in str(said.value)


def test_the_text_of_another_picture_is_never_ones_own(monkeypatch):
    """Captions are drawn anew, so one's own may read differently and be true."""
    drawn = itertools.count()
    monkeypatch.setattr(
        matching.transforms.CaptionOptions,
        "text",
        lambda self, record, rng: f"{record} {next(drawn)}",
    )
    monkeypatch.setattr(matching, "pictures_of", lambda *_: None)
    monkeypatch.setattr(matching, "match_scores", lambda model, photos, texts: texts)
    model = types.SimpleNamespace(editor=types.SimpleNamespace(size=8))
    own, other = matching.scored_pairs(model, ["a", "b", "c"])
    assert all(a.split()[0] != b.split()[0] for a, b in zip(own, other))
