"""Which words are true of a picture, by their grades."""

from gptface_jax.data import phrases, synthetic, tag_words


def test_grades_by_hand():
    scores = {
        "Male": 0.97,
        "Eyeglasses": 0.7,  # likely
        "Wearing_Hat": 0.02,
        "Blond_Hair": 0.4,
        "Mouth_Slightly_Open": 0.95,
        "Smiling": 0.3,  # serious: likely
    }
    found = tag_words.grades(scores, "happiness")
    twos = {w for w, grade in found.items() if grade == 2}
    assert twos == {"man", "gentleman", "guy", "bareheaded", "happy"}
    ones = {w for w, grade in found.items() if grade == 1}
    assert ones == {"glasses", "eyeglasses", "serious", "open", "mouth"}
    assert tag_words.grades(None) == {} == tag_words.grades({"Male": 0.5})


def test_a_word_and_its_opposite_are_never_both_true():
    faces = synthetic.SyntheticFaces(size=32, count=300, seed=3)
    pairs = (
        ("man", "woman"), ("hat", "bareheaded"), ("smiling", "serious"),
        ("young", "older"), ("tie", "tieless"), ("happy", "sad"),
    )  # fmt: skip
    seen = set()
    for i in range(300):
        factors = faces.factors(i)
        truth = synthetic.labels(factors)
        found = tag_words.grades(truth, factors.expression)
        seen |= set(found)
        for one, other in pairs:
            assert found.get(one, 0) == 0 or found.get(other, 0) == 0, (one, truth)
        assert found.get("hat", 0) == 2 * (truth["Wearing_Hat"] > 0.9)
        assert not tag_words.STOP & set(found)
        # An occluder hides it: nothing is said.
        if truth["Smiling"] == 0.5:
            assert not {"smiling", "serious"} & set(found)
    assert {word for pair in pairs for word in pair} <= seen


def test_the_words_are_those_of_captions():
    names = {name for name, _ in tag_words.WORDS}
    known = {*phrases.PHRASES, *phrases.HAIR_COLOURS, *phrases.HAIR_SHAPES}
    assert names <= known | {"Male", "Young"} | set(phrases.EXPRESSIONS)
