"""The few-shot probe from records to figures, by the smallest model of the way."""

import json

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import sources, synthetic
from gptface_jax.data.record import Record
from gptface_jax.evaluate.few_shot import Training
from gptface_jax.pipelines import networks
from gptface_jax.protocols import few_shot

SPEC = {"kind": "synthetic", "size": 32, "count": 40, "seed": 5}


@pytest.fixture(scope="module")
def records():
    return few_shot.splits(SPEC)


def test_features_do_not_depend_on_the_batch(model):
    ids = np.random.default_rng(0).integers(0, 27, (67, 8, 8))
    network = model.editor.gptface
    found = few_shot.features(network, ids)
    assert found.shape == (67, 6, 16) and found.dtype == np.float32
    np.testing.assert_allclose(
        found[66:], few_shot.features(network, ids[66:]), atol=1e-5
    )
    last = few_shot.features(network, ids[:2], layers=[2])
    np.testing.assert_allclose(last, found[:2, 3:], atol=1e-5)
    with pytest.raises(UserError, match="layer 3 is asked for; the model has 1 to 2"):
        few_shot.features(network, ids, layers=[3])


@pytest.mark.slow
def test_before_the_first_step(model):
    """Another network of the same shapes, from the tokenizer's codes as training."""
    network, fresh = model.editor.gptface, few_shot.untrained(model)
    shapes = [
        {k: v.shape for k, v in few_shot.trees.flatten(n.params).items()}
        for n in (network, fresh)
    ]
    assert shapes[0] == shapes[1]
    assert networks.experiment(network, "gptface")["data"]["codebook_init"]
    codes = model.editor.vqgan.network.params["codebook"]
    start = network.config.vocab.text_size
    table = np.asarray(fresh.params["tokens"]["embedding"])[start : start + len(codes)]

    def distances(x):
        return np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(len(x), 1)]

    assert np.corrcoef(distances(codes), distances(table))[0, 1] > 0.3


@pytest.mark.slow
def test_probe_of_attributes_and_expressions(model, records):
    train, test = records
    task = few_shot.make_task("attributes", train, ["Male", "Wearing_Hat"])
    found = few_shot.probe(
        {"tiny": model}, task, train, test, (0.5,), (0, 1),
        training=Training(epochs=2), progress=False,
    )  # fmt: skip
    assert (found["train"], found["test"]) == (40, 10)
    assert set(found["curves"]) == {"tiny", "random", "cnn", "majority"}
    assert all(len(runs) == 2 for c in found["curves"].values() for runs in c.values())
    assert len(found["rows"]) == 4
    assert json.loads(json.dumps(found["rows"]))[0]["backbone"] == "tiny"
    printed = few_shot.table(found["rows"])
    assert "majority" in printed and "50 %" in printed
    task = few_shot.make_task("expressions", train, per_class=4)
    found = few_shot.probe(
        {"tiny": model}, task, train, test, (1.0,), (0,),
        training=Training(epochs=2), baselines=(), progress=False,
    )  # fmt: skip
    assert found["train"] <= 4 * len(task.names) and set(found["curves"]) == {"tiny"}


def test_what_cannot_be_probed(model, records):
    train, test = records
    with pytest.raises(UserError, match="task 'ages' is unknown"):
        few_shot.make_task("ages", train)
    with pytest.raises(UserError, match="says 'Smilling' .did you mean 'Smiling'"):
        few_shot.make_task("attributes", train, ["Smilling"])
    with pytest.raises(UserError, match="say nothing as expressions"):
        few_shot.make_task("expressions", [Record()])
    with pytest.raises(UserError, match="is for the task expressions"):
        few_shot.make_task("attributes", train, per_class=3)
    task = few_shot.make_task("attributes", train, ["Male"])
    given = {"a": model}, task, train, test
    with pytest.raises(UserError, match="fraction 1.5 is not above 0"):
        few_shot.probe(*given, (1.5,))
    with pytest.raises(UserError, match="baseline 'cn' is unknown"):
        few_shot.probe(*given, (1.0,), baselines=("cn",))
    with pytest.raises(UserError, match="a model is named 'random'"):
        few_shot.probe({"random": model}, *given[1:], (1.0,))
    with pytest.raises(UserError, match="none of the 1 test pictures has"):
        few_shot.probe(*given[:3], [Record()], (1.0,))


def test_people_are_kept_apart():
    train = [Record(identity="a"), Record(identity="b"), Record(identity=None)]
    few_shot.check_apart(train, [Record(identity="c"), Record(identity=None)])
    with pytest.raises(UserError, match="^2 people are in the training and"):
        few_shot.check_apart(train, [Record(identity="b"), Record(identity="a")])
    train, test = few_shot.splits({**SPEC, "count": 30})
    assert (len(train), len(test)) == (30, 7)
    assert not {r.identity for r in train} & {r.identity for r in test}


@pytest.mark.shared
def test_the_photographs_keep_people_apart(shared):
    spec = {"kind": "parquet", "path": str(shared / "data/faces")}
    parts = [
        sources.open_source({**spec, "split": split})
        for split in ("train", "validation", "test")
    ]
    people = [set(part._table.column("person").to_pylist()) - {None} for part in parts]
    assert not people[0] & (people[1] | people[2]) and all(people)


@pytest.mark.slow
def test_the_command(tiny, tmp_path, gptface_command, capsys):
    pytest.importorskip("matplotlib")
    out, plot = tmp_path / "probe.json", tmp_path / "probe.png"
    command = (
        "evaluate", "probe", "--quiet", "--images", "synthetic", "--limit", 24,
        "--names", "Male", "Smiling", "--seeds", 0, 1, "--fractions", 0.5, 1,
        "--epochs", 1, "--baselines", "random",
    )  # fmt: skip
    models = ("--model", f"first={tiny / 'model'}", "--model", tiny / "model")
    status = gptface_command(*command, *models, "--out", out, "--plot", plot)
    assert status == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "attributes: 2, 24 pictures to learn from, 6 to test on, 2 seeds" in printed
    found = json.loads(out.read_text())
    assert list(found["curves"]) == ["first", "model", "random"]
    assert found["curves"]["first"] == found["curves"]["model"]  # one and the same
    assert plot.stat().st_size > 10_000
    wrong = ("--model", "x=", "--model", "b")
    assert gptface_command(*command, *wrong) == 2
    assert "--model x= is no NAME=PATH" in capsys.readouterr().err
    assert gptface_command(*command, "--model", "demo", "--model", "demo") == 2
    assert "--model names 'demo' twice" in capsys.readouterr().err


def test_synthetic_test_faces_are_of_the_same_collection():
    train, test = few_shot.splits({**SPEC, "count": 8})
    more = synthetic.SyntheticFaces(size=32, count=12, seed=5)
    np.testing.assert_array_equal(test[0].image, more[8].image)
    np.testing.assert_array_equal(train[7].image, more[7].image)
