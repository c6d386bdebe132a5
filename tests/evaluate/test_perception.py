"""Metrics of face perception: by hand, and against the reference's evaluators."""

import pathlib

import numpy as np
import pytest

from gptface_jax.evaluate import perception

GOLDEN = pathlib.Path("../shared/golden/faceptor.npz")


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_file():
        pytest.skip("../shared/golden is not there")
    with np.load(GOLDEN) as arrays:
        return {name: arrays[name] for name in arrays if name.startswith("eval_")}


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


def test_landmark_errors_by_hand():
    truth = np.zeros((1, 19, 2))
    truth[0, 6], truth[0, 11] = (0, 0), (40, 0)
    truth[0, 7], truth[0, 10] = (10, 0), (30, 0)
    points = truth + [3.0, 4.0]  # five pixels away each
    boxes = np.array([[0.0, 0.0, 80.0, 20.0]])
    by = perception.landmark_normalisers(truth, "aflw19", boxes)
    found = {name: perception.landmark_error(points, truth, by[name]) for name in by}
    assert found["inter_ocular"] == [5 / 40] and found["inter_pupil"] == [5 / 20]
    assert found["box"] == [5 / 40]  # the root of 80 * 20
    np.testing.assert_allclose(found["diagonal"], 5 / np.hypot(80, 20))
    points[0, 3:] = np.nan  # unknown points do not count
    assert perception.landmark_error(points, truth, np.ones(1)) == [5]
    with pytest.raises(ValueError, match="scheme 'ibug' is none of ibug68"):
        perception.landmark_normalisers(truth, "ibug")


def test_faces_that_cannot_be_judged_by_hand():
    """No corner of an eye, both in one place, and no point at all."""
    truth = np.zeros((4, 29, 2))
    truth[:, 9] = (40, 30)  # 50 from the other corner
    truth[1, 8], truth[2, 9], truth[3] = np.nan, 0, np.nan
    apart = perception.landmark_normalisers(truth, "cofw29")["inter_ocular"]
    error = perception.landmark_error(np.nan_to_num(truth) + [3, 4], truth, apart)
    np.testing.assert_array_equal(error, [5 / 50, np.nan, np.nan, np.nan])
    curve = perception.cumulative(np.array([0.05, np.nan, 0.2]), 0.1)
    assert curve == perception.cumulative(np.array([0.05, 0.2]), 0.1)
    boxes = np.full((4, 4), np.nan)
    boxes[1] = (1, 2, 3, 4)
    around = perception.face_boxes(truth, boxes)
    assert around[:3].tolist() == [[0, 0, 40, 30], [1, 2, 3, 4], [0, 0, 0, 0]]
    assert np.isnan(around[3]).all()


def test_the_curve_of_errors_by_hand():
    """Of two faces one is at 0.05 and one beyond 0.1: a half from the middle on."""
    area, failures = perception.cumulative(np.array([0.05, 0.2]), 0.1)
    assert failures == 0.5
    np.testing.assert_allclose(area, 0.25, atol=1e-3)


def test_parsing_by_hand():
    target = np.array([[0, 1, 1, 255], [2, 2, 0, 1]])
    said = np.array([[0, 1, 2, 1], [2, 0, 0, 1]])
    matrix = perception.confusion(target, said, 4)
    assert matrix.tolist() == [[2, 0, 0, 0], [0, 2, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    found = perception.parsing(matrix)
    np.testing.assert_allclose(found.f1, [4 / 5, 4 / 5, 2 / 4, np.nan])
    assert found.absent == (3,) and found.mean == pytest.approx(0.65)


def test_ages_by_hand():
    logits = np.full((1, 101), -50.0)
    logits[0, 30] = logits[0, 40] = 3.0
    np.testing.assert_allclose(perception.expected_ages(logits), [35])
    found = perception.ages(np.array([30.0, 46.0]), np.array([35, 40]))
    assert found["mae"] == 5.5 and found["within_5"] == 0.5
    assert found["epsilon"] == pytest.approx(
        1 - (np.exp(-25 / 18) + np.exp(-36 / 18)) / 2
    )


def test_classes_and_attributes_by_hand():
    logits = np.eye(3)[[0, 0, 0, 1]]
    labels = np.array([0, 0, 1, 1])
    assert perception.accuracy(logits, labels) == 0.75
    assert perception.balanced_classes(logits, labels) == 0.75
    assert perception.balanced_classes(logits, np.array([0, 0, 0, 2])) == 0.5
    logits = np.array([[1.0, 1], [1, 1], [-1, 1], [1, 1]])
    labels = np.array([[1, 1], [0, 1], [0, 1], [-1, 1]])
    found = perception.attributes(logits, labels)
    assert found["accuracy"].tolist() == [pytest.approx(2 / 3), 1.0]
    assert found["balanced"][0] == 0.75 and np.isnan(found["balanced"][1])


def test_verification_by_hand():
    """Equal pairs are equal vectors, different ones are opposite, in two folds."""
    plain = np.array([[1.0, 0], [1, 0], [1, 0], [-1, 0]] * 2)
    same = np.array([True, False] * 2)
    found = perception.verification(plain, 0 * plain, same, folds=2)
    assert found.accuracy.tolist() == [1, 1]
    assert found.true_rate[0] == 0  # strictly below
    assert found.true_rate[1] == 1 and found.false_rate[-1] == 0
    swapped = perception.verification(plain, 0 * plain, ~same, folds=2)
    assert swapped.accuracy.mean() == 0.5


@pytest.mark.shared
@pytest.mark.parametrize(
    "name,scheme", [("w300", "ibug68"), ("cofw", "cofw29"), ("wflw", "wflw98"),
                    ("aflw", "aflw19")]
)  # fmt: skip
def test_landmarks_as_the_reference(golden, name, scheme):
    truth = golden[f"eval_landmarks_{name}"]
    points = golden[f"eval_pred_landmarks_{name}"]
    boxes = golden.get(f"eval_box_{name}")
    by = perception.landmark_normalisers(truth, scheme, boxes)
    errors = {k: perception.landmark_error(points, truth, v) for k, v in by.items()}
    close([e.mean() for e in errors.values()], golden[f"eval_nme_{name}"])
    if f"eval_auc_fr_{name}" in golden:
        kind, limit = ("box", 0.07) if name == "aflw" else ("inter_ocular", 0.1)
        close(errors[kind], golden[f"eval_nmes_{name}"])
        found = perception.cumulative(errors[kind], limit)
        close(found, golden[f"eval_auc_fr_{name}"])


@pytest.mark.shared
def test_the_rest_as_the_reference(golden):
    given = golden["eval_parsing_target"], golden["eval_parsing_pred"]
    matrix = perception.confusion(*given, 5)
    assert (matrix == golden["eval_parsing_confusion"]).all()
    found = perception.parsing(matrix)
    close([*found.f1, found.mean], golden["eval_parsing_f1"])
    ages = perception.expected_ages(golden["eval_age_logits"])
    mae, close_by, epsilon = perception.ages(ages, golden["eval_age_label"]).values()
    close([mae, 100 * close_by, epsilon], golden["eval_age"])
    given = golden["eval_biattr_logits"], golden["eval_biattr_label"]
    each = 100 * perception.attributes(*given)["accuracy"]
    close([each.mean(), *each], golden["eval_biattr"])
    given = golden["eval_affect_logits"], golden["eval_affect_label"]
    close([100 * perception.accuracy(*given)], golden["eval_affect"])
    given = golden["eval_verification_embeddings"], golden["eval_verification_same"]
    found = perception.verification(*given[0], given[1])
    close(found.accuracy, golden["eval_verification_fold_accuracy"])
    close([found.accuracy.mean(), found.accuracy.std()], golden["eval_verification"])
    close(found.true_rate, golden["eval_verification_tpr"])
    close(found.false_rate, golden["eval_verification_fpr"])


@pytest.mark.shared
def test_an_absent_class_is_told(golden):
    """The reference's mean is NaN then; ours is of the classes that are there."""
    wanted = golden["eval_parsing_f1_absent_class"]
    target, said = golden["eval_parsing_target"], golden["eval_parsing_pred"]
    absent = int(np.flatnonzero(np.isnan(wanted[:5]))[0])
    for other in range(5):  # the class was painted over by one of the others
        given = (np.where(x == absent, other, x) for x in (target, said))
        found = perception.parsing(perception.confusion(*given, 5))
        if np.allclose(found.f1, wanted[:5], equal_nan=True):
            break
    close(found.f1, wanted[:5])
    assert found.absent == (absent,)
    assert found.mean == pytest.approx(np.nanmean(wanted[1:5]))
