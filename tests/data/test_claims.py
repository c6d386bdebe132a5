"""What sentences claim: by hand, and of every caption that is made."""

import numpy as np
import pytest

from gptface_jax.data import captions, claims, phrases, synthetic


@pytest.mark.parametrize(
    "text, found",
    [
        ("A smiling woman with glasses.", "Smiling Eyeglasses -Male"),
        ("a man without glasses, not smiling", "-Eyeglasses -Smiling Male"),
        ("no hat, bearded", "-Wearing_Hat -No_Beard"),
        ("a lady without a hat", "-Male -Wearing_Hat"),
        ("wavy blond hair and bangs", "Bangs Blond_Hair Wavy_Hair"),
        ("a woman without long, blond hair", "-Male -Blond_Hair"),
        ("no hat, brown hair", "-Wearing_Hat Brown_Hair"),
        ("someone with no hair on the head", "Bald"),
        ("an older guy looking angry", "Male -Young anger"),
        ("clean-shaven, with a bare upper lip", "No_Beard -Mustache"),
        ("without a beard", "No_Beard"),
        ("a man not wearing glasses", "-Eyeglasses Male"),
        ("not wearing any glasses, with a hat", "-Eyeglasses Wearing_Hat"),
        ("without a hat or glasses", "-Eyeglasses -Wearing_Hat"),
        ("no hat or earrings or glasses", "-Eyeglasses -Wearing_Earrings -Wearing_Hat"),
        ("neither smiling nor wearing a hat", "-Smiling -Wearing_Hat"),
        ("without a beard or a tie", "No_Beard -Wearing_Necktie"),
        ("no brown or blond hair", "-Blond_Hair -Brown_Hair"),
        ("no hat or brown hair", "-Brown_Hair -Wearing_Hat"),
        # What a negation does not reach.
        ("without a hat or without glasses", "-Eyeglasses -Wearing_Hat"),
        ("no beard, a hat or glasses", "Eyeglasses No_Beard Wearing_Hat"),
        ("without a hat and wearing glasses", "Eyeglasses -Wearing_Hat"),
        (
            "without a beard, wearing a hat or glasses",
            "Eyeglasses No_Beard Wearing_Hat",
        ),
        ("not smiling with a beard or glasses", "Eyeglasses -No_Beard -Smiling"),
        ("the weather is fine", ""),
        ("a golden chain of hairdressers", ""),
    ],
)
def test_claims_by_hand(text, found):
    wanted = sorted((w.removeprefix("-"), w[0] != "-") for w in found.split())
    assert claims.claimed(text) == wanted


def test_every_wording_is_understood():
    for name, entry in phrases.PHRASES.items():
        for present, wordings in ((True, entry.present), (False, entry.absent)):
            for wording in wordings:
                text = f"a person {entry.slot if present else ''} {wording}"
                assert (name, present) in claims.claimed(text), wording
                assert (name, not present) not in claims.claimed(text), wording


def test_captions_claim_what_is_true():
    """Whatever a made caption says of a picture with certain labels is so."""
    rng = np.random.default_rng(0)
    said = 0
    for index in range(300):
        factors = synthetic.sample_factors(9, index)
        labels = synthetic.labels(factors)
        for tags in (0.0, 1.0):
            text = captions.caption(
                labels, rng, expression=factors.expression, tags=tags
            )
            truth = claims.truths(labels, factors.expression)
            for name, present in claims.claimed(text):
                assert truth[name] == present, (text, name)
                said += 1
    assert said > 1500


def test_truths():
    found = claims.truths({"Male": 0.99, "Bald": 0.5, "Smiling": 0.0, "Age": 33.0})
    assert found == {"Male": True, "Smiling": False}
    assert claims.truths(None, "anger") == {
        n: n == "anger" for n in phrases.EXPRESSIONS
    }
    assert claims.truths(None) == {}
