"""Metrics of captions: on paper, and against the packages that others use."""

import math

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions as wordings
from gptface_jax.data import claims, synthetic
from gptface_jax.evaluate import captions


@pytest.fixture(scope="module")
def corpus():
    """40 pictures: one caption and one to three others of the same labels."""
    rng = np.random.default_rng(0)
    candidates, references = [], []
    for index in range(40):
        factors = synthetic.sample_factors(3, index)
        labels = synthetic.labels(factors)

        def say(labels=labels, factors=factors):
            return wordings.caption(labels, rng, expression=factors.expression)

        candidates.append(say())
        references.append([say() for _ in range(1 + index % 3)])
    return candidates, references


def test_bleu_by_hand():
    """6 words, 5/6 of them, 3/5 pairs, 1/4 and 0/3: BLEU-4 is 0, BLEU-2 by hand."""
    candidate, reference = ["the cat sat on a mat"], [["the cat sat on the mat"]]
    assert captions.bleu(candidate, reference) == pytest.approx(
        (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    )
    # "the the" is clipped to one; two words against three cost exp(1 - 3/2).
    short = captions.bleu(["the the"], [["the cat sat"]], order=1)
    assert short == pytest.approx(math.exp(-0.5) * 1 / 2)
    assert captions.bleu(["dog"], [["cat"]]) == 0
    assert captions.bleu(["A cat, sat on it!"], [["x", "a cat sat on it"]]) == 1
    # Of two references equally near the shorter one counts: 2 of 3 and 1.
    assert captions.bleu(["a b"], [["a b c", "b"]], order=1) == 1


def test_rouge_by_hand():
    """The longest common subsequence of these is "the cat on mat"."""
    candidate, reference = ["the cat lay on mat"], [["the cat sat on the mat"]]
    precision, recall = 4 / 5, 4 / 6
    for beta in (1.0, 1.2):
        wanted = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
        found = captions.rouge_l(candidate, reference, beta)
        assert found == pytest.approx([wanted])
    assert captions.rouge_l(["", "x"], [["a"], ["b"]]).tolist() == [0, 0]
    assert captions.rouge_l(["a b"], [["c", "a b"]]).tolist() == [1]


def test_cider_by_hand():
    """Two pictures: words of one count log 2, words of both nothing."""
    found = captions.cider(["a dog", "a cat"], [["a dog"], ["a fox"]], order=1)
    # Picture 0: the vectors are (dog: log 2) both. Picture 1: cat is not in fox.
    assert found.tolist() == [10, 0]
    # Half of the candidate's vector, and a word less: exp(-1 / 72).
    found = captions.cider(["dog fox", "x"], [["dog"], ["fox"]], order=1)
    assert found[0] == pytest.approx(10 * math.exp(-1 / 72) / math.sqrt(2))
    assert captions.cider(["a dog"], [["a dog"]]).tolist() == [0]


def test_bleu_is_that_of_sacrebleu(corpus):
    sacrebleu = pytest.importorskip("sacrebleu")
    candidates, references = corpus
    plain = [" ".join(captions.words(c)) for c in candidates]
    streams = [
        [" ".join(captions.words(r[i])) if i < len(r) else None for r in references]
        for i in range(3)
    ]
    theirs = sacrebleu.corpus_bleu(
        plain, streams, tokenize="none", smooth_method="none", force=True
    )
    ours = captions.bleu(candidates, references)
    assert 0.05 < ours == pytest.approx(theirs.score / 100, abs=1e-9)


def test_rouge_is_that_of_rouge_score(corpus):
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    candidates, references = corpus
    scorer = scorer.RougeScorer(["rougeL"])
    firsts = [several[:1] for several in references]
    theirs = [
        scorer.score(" ".join(captions.words(r)), " ".join(captions.words(c)))
        for c, (r,) in zip(candidates, firsts)
    ]
    ours = captions.rouge_l(candidates, firsts, beta=1.0)
    np.testing.assert_allclose(ours, [t["rougeL"].fmeasure for t in theirs], atol=1e-9)


def test_all_are_those_of_pycocoevalcap(corpus):
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = corpus

    def plain(text):
        return " ".join(captions.words(text))

    theirs = {i: [plain(r) for r in s] for i, s in enumerate(references)}
    ours = {i: [plain(c)] for i, c in enumerate(candidates)}
    _, cider = Cider().compute_score(theirs, ours)
    np.testing.assert_allclose(captions.cider(candidates, references), cider, atol=1e-9)
    assert np.std(cider) > 0.3
    _, rouge = Rouge().compute_score(theirs, ours)
    np.testing.assert_allclose(
        captions.rouge_l(candidates, references), rouge, atol=1e-9
    )
    scorer = BleuScorer(n=4)
    for i in ours:
        scorer += (ours[i][0], theirs[i])
    scores, _ = scorer.compute_score(option="closest", verbose=0)
    # They add 1e-15 and 1e-9 to their counts.
    assert captions.bleu(candidates, references) == pytest.approx(scores[3], abs=1e-6)


def test_meteor_is_left_out_and_says_so(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert captions.meteor(["a"], [["a"]]) == (
        None, "METEOR was left out: there is no Java"
    )  # fmt: skip
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/java")
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.meteor.meteor", None)
    assert "gptface_jax[eval]" in captions.meteor(["a"], [["a"]])[1]


def test_all_scores_together(corpus, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    candidates, references = corpus
    figures, rows, notes = captions.scores(candidates, references)
    assert notes == ["METEOR was left out: there is no Java"]
    assert set(figures) == {"bleu_4", "rouge_l", "cider", "count"}
    assert figures["count"] == 40 == len(rows)
    assert figures["cider"] == pytest.approx(np.mean([r["cider"] for r in rows]))
    assert rows[3]["caption"] == candidates[3]
    assert rows[3]["references"] == references[3]
    assert captions.scores(["a"], [["a"]], with_meteor=False)[2] == []


@pytest.mark.slow
def test_meteor_knows_synonyms():
    pytest.importorskip("pycocoevalcap")
    scores, why = captions.meteor(
        ["A man with a hat.", "a fish"],
        [["a man with a hat", "x"], ["a gentleman in a suit"]],
    )
    if scores is None:
        pytest.skip(why)
    assert scores[0] == pytest.approx(1) and scores[1] < 0.3


def test_bad_input():
    with pytest.raises(UserError, match="2 candidates and references of 1"):
        captions.bleu(["a", "b"], [["a"]])
    with pytest.raises(UserError, match="references of candidate 0 are 'a cat'"):
        captions.cider(["a"], ["a cat"])
    with pytest.raises(UserError, match="0 candidates"):
        captions.rouge_l([], [])


def test_richness_and_accuracy_by_hand():
    said = [
        claims.claimed("A smiling woman with glasses and a hat"),
        claims.claimed("a man without glasses"),
        claims.claimed("a photo"),
    ]
    truths = [
        {"Smiling": True, "Male": False, "Eyeglasses": False},
        {"Male": False, "Eyeglasses": False},
        {},
    ]
    rows = captions.attribute_rows(said, truths)
    assert rows == [
        {"mentioned": 4, "checked": 3, "correct": 2},
        {"mentioned": 2, "checked": 2, "correct": 1},
        {"mentioned": 0, "checked": 0, "correct": 0},
    ]
    figures = captions.attribute_figures(rows)
    assert figures == {"richness": 2.0, "accuracy": 3 / 5, "checked": 5.0}
    nothing = captions.attribute_figures(rows[2:])
    assert nothing["richness"] == 0 and math.isnan(nothing["accuracy"])
    both = captions.attribute_rows(
        [[("Male", True), ("Male", False)]], [{"Male": True}]
    )
    assert both == [{"mentioned": 1, "checked": 2, "correct": 1}]
