import re

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions, phrases

LABELS = {
    "Male": 0.98,
    "Smiling": 0.95,
    "Eyeglasses": 0.02,
    "Wearing_Hat": 0.5,
    "Blond_Hair": 0.99,
    "Black_Hair": 0.01,
    "Wavy_Hair": 0.97,
    "No_Beard": 0.03,
    "Young": 0.99,
}


def many(count=400, labels=LABELS, **options):
    return [
        captions.caption(labels, np.random.default_rng(i), **options)
        for i in range(count)
    ]


def test_same_state_same_text_and_varied_wording():
    assert many(20) == many(20)
    assert len(set(many())) > 150


def test_only_confident_and_true_things_are_said():
    for text in many(expression="happiness"):
        words = text.replace(",", " ").split()
        assert "hat" not in words and "headwear" not in words  # score 0.5
        assert "woman" not in words and "lady" not in words
        assert "dark" not in words and "black" not in words
        if "glasses" in words or "eyeglasses" in words:
            assert "without glasses" in text
        assert "clean-shaven" not in text and "without a beard" not in text
    assert any("wavy blond hair" in t or "curly blonde hair" in t for t in many())
    assert any("happy" in t for t in many(expression="happiness"))


def test_the_borders_are_0_1_and_0_9():
    assert phrases.known({"a": 0.9}, "a") is None
    assert phrases.known({"a": 0.1}, "a") is None
    assert phrases.known({"a": 0.91}, "a") is True
    assert phrases.known({"a": 0.09}, "a") is False
    assert phrases.known({}, "a") is None


def test_number_of_claims_is_limited():
    for text in many(100, max_phrases=1):
        found = sum(
            any(p in text for p in (*entry.present, *entry.absent))
            for name, entry in phrases.PHRASES.items()
            if name in LABELS
        )
        assert found <= 1


def test_rho_is_the_share_of_related_texts():
    stem = ("man", "guy", "gentleman", "person", "someone")

    def related(text):
        return any(w in text.replace(",", " ").split() for w in stem)

    for style in ("strong", "weak"):
        share = np.mean([related(t) for t in many(1500, style=style, rho=0.3)])
        assert 0.24 < share < 0.36
    assert not any(related(t) for t in many(200, rho=0.0))


def test_nothing_known_gives_no_text():
    assert captions.caption(None, np.random.default_rng(0)) == ""
    assert captions.caption({}, np.random.default_rng(1), style="weak") == ""
    assert captions.caption({}, np.random.default_rng(1), rho=0.0)
    with pytest.raises(UserError, match="'strong' or 'weak'"):
        captions.caption({}, np.random.default_rng(0), style="loud")


def between_common_ends(one, two):
    """What differs of two lists of words, without their common start and end."""
    while one and two and one[0] == two[0]:
        one, two = one[1:], two[1:]
    while one and two and one[-1] == two[-1]:
        one, two = one[:-1], two[:-1]
    return {*one, *two}


def words_of_claims():
    """The words of each claim, present and absent; a comma is none of them."""
    for entry in phrases.PHRASES.values():
        yield {w for p in (*entry.present, *entry.absent) for w in p.split()} | {
            entry.slot
        }
    for group in (phrases.HAIR_COLOURS, phrases.HAIR_SHAPES, captions._NOUNS):
        yield {w for words in group.values() for w in words}


def test_hard_negatives_differ_in_one_claim():
    hair = {"Black_Hair": 0.0, "Blond_Hair": 0.0, "Gray_Hair": 0.0, "Brown_Hair": 1.0}
    worn = {"Wearing_Hat": 1.0, "Eyeglasses": 1.0, "Wearing_Lipstick": 1.0}
    more = {"Mouth_Slightly_Open": 1.0, "Mustache": 1.0, "Bangs": 1.0, "Age": 34}
    turned = 0
    for i in range(1000):
        labels = LABELS if i % 2 else LABELS | hair | worn | more
        pair = captions.hard_negative(labels, np.random.default_rng(i))
        if pair is None:
            continue
        turned += 1
        assert pair[0] != pair[1]
        # An age says "his" or "her", which follows the sex.
        texts = [p.replace(" his ", " her ").replace(",", " ,").split() for p in pair]
        differing = between_common_ends(*texts)
        assert any(differing <= words for words in words_of_claims()), pair
    assert turned > 970
    only = {"Male": 0.99}
    for i in range(30):
        pair = captions.hard_negative(only, np.random.default_rng(i))
        if pair:
            assert any(w in pair[1] for w in ("woman", "lady"))
    assert captions.hard_negative({}, np.random.default_rng(0)) is None


def test_at_least_one_phrase():
    rng = np.random.default_rng(0)
    for count in (0, -1):
        with pytest.raises(UserError, match=f"max_phrases is {count}; use 1 or more"):
            captions.caption(LABELS, rng, max_phrases=count)
        with pytest.raises(UserError, match="max_phrases"):
            captions.hard_negative(LABELS, rng, max_phrases=count)


def test_a_claim_apart_is_a_clause_of_its_own():
    chosen = [("Eyeglasses", True), ("Wearing_Hat", True), ("Smiling", True)]
    text = captions.describe(chosen, captions._First(), apart="Eyeglasses")
    assert text == "a person wearing a hat, wearing glasses, smiling"
    text = captions.describe(chosen, captions._First())
    assert text == "a person wearing glasses and a hat, smiling"


def test_tag_lists():
    rng = np.random.default_rng(0)
    text = captions.tag_list([("Eyeglasses", False), ("Bald", True)], rng, male=True)
    assert sorted(text.split(", ")) == ["bald head", "bare eyes", "man"]
    listed = many(300, tags=1.0)
    assert not any(w in t.split() for t in listed for w in ("a", "wearing", "hat"))
    assert all("woman" not in t for t in listed)
    assert np.mean([t.count(",") for t in listed]) > 2.5
    share = np.mean(["a " not in t for t in many(600, tags=0.5)])
    assert 0.35 < share < 0.75


def test_word_bag_holds_what_is_true():
    labels = {
        "Male": 0.99,
        "Eyeglasses": 0.02,
        "Wearing_Hat": 0.97,
        "Smiling": 0.01,
        "No_Beard": 0.95,
        "Bangs": 0.5,
        "Black_Hair": 1.0,
    }
    words = captions.word_bag(labels, expression="anger")
    assert set(words.split()) == {
        *("man", "angry", "hat", "serious", "clean-shaven", "black", "hair"),
        *("bare", "eyes"),
    }
    assert captions.word_bag(labels, attributes=("Wearing_Hat",)) == "man hat"
    assert captions.word_bag(None) == captions.word_bag({"Smiling": 0.5}) == ""


def test_edit_texts():
    assert captions.edit_text("Smiling", True, {"Male": 0.0}) == "a woman smiling"
    assert (
        captions.edit_text("Smiling", False, {"Male": 1.0})
        == "a man with a serious face"
    )
    assert captions.edit_text("Eyeglasses", True) == "a person wearing glasses"
    assert captions.edit_text("Male", True) == "a man"
    assert captions.edit_text("Black_Hair", False).endswith("blond hair")
    assert "older" in captions.edit_text("Young", False)
    with pytest.raises(UserError, match="did you mean 'Smiling'"):
        captions.edit_text("Smilling", True)
    with pytest.raises(UserError, match="absence"):
        captions.edit_text("Bald", False)


def test_every_phrase_reads_as_a_sentence():
    for name in (*phrases.PHRASES, *phrases.HAIR_COLOURS, *phrases.HAIR_SHAPES):
        text = captions.describe([(name, True)], np.random.default_rng(0), male=False)
        assert "  " not in text and text == text.strip()
        assert text.split()[0] in ("a", "an", "this", "close-up", "someone")
    old = captions.describe([], np.random.default_rng(3), male=True, young=False)
    assert " a older" not in f" {old}"


def test_attributes_that_a_sentence_names():
    for text, names in {
        "A man with Glasses.": {"Eyeglasses"},
        "a smiling woman with wavy blond hair": {"Smiling", "Blond_Hair", "Wavy_Hair"},
        "someone without a beard, bareheaded": {"No_Beard", "Wearing_Hat"},
        "a woman with an open mouth": {"Mouth_Slightly_Open"},
        "a black coat": set(),
        "an older woman": set(),
    }.items():
        assert set(captions.named(text)) == names, text
    for name in (*phrases.PHRASES, *phrases.HAIR_COLOURS, *phrases.HAIR_SHAPES):
        assert name in captions.named(captions.edit_text(name, True)), name


def test_an_expression_that_is_all_that_is_known_is_told():
    for seed in range(20):
        text = captions.caption(None, np.random.default_rng(seed), expression="anger")
        assert "angry" in text or "anger" in text
        assert captions.caption(None, np.random.default_rng(seed)) == ""


def test_decades_by_hand():
    """None below 10; what 10 to 89 years are called stays, for captions are data."""
    words = "teens twenties thirties forties fifties sixties seventies eighties"
    for age in range(10, 90):
        assert captions.decade(age) == words.split()[age // 10 - 1]
    assert captions.decade(90) == captions.decade(99.9) == "nineties"
    assert {captions.decade(age) for age in (0, 4, 9.9, 100, 119)} == {""}
    children, grown = (many(labels={**LABELS, "Age": age}) for age in (4.0, 34.0))
    assert sum("thirties" in text for text in grown) > 20
    for child, text in zip(children, grown):
        # The same words otherwise: an age draws nothing.
        assert child == re.sub(",? in (his|the) thirties$", "", text)
