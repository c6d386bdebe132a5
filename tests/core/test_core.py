import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping, load_config, override, to_mapping
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.core.vocab import JointVocab


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 4
    rate: float = 0.5
    name: str = "a"
    sizes: tuple[int, ...] = (1, 2)
    flag: bool = False
    maybe: int | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    count: int = 1


def test_from_mapping_builds_nested_dataclasses():
    built = from_mapping(Outer, {"inner": {"sizes": [3, 4], "rate": 1}, "count": 2})
    assert built == Outer(Inner(sizes=(3, 4), rate=1.0), 2)
    assert from_mapping(Outer, to_mapping(built)) == built


@pytest.mark.parametrize(
    "values, said",
    [
        ({"coutn": 2}, "'coutn' .did you mean 'count'"),
        ({"inner": {"widht": 2}}, "'inner.widht' .did you mean 'width'"),
        ({"count": "two"}, "'count' is 'two'; expected int"),
        ({"inner": {"flag": 1}}, "expected bool"),
        ({"inner": {"width": True}}, "expected int"),
        ({"inner": {"maybe": "x"}}, "expected int or NoneType"),
    ],
)
def test_from_mapping_refuses(values, said):
    with pytest.raises(UserError, match=said):
        from_mapping(Outer, values)


def test_override_sets_and_checks():
    config = ConfigDict({"a": {"b": 1, "c": (1, 2)}, "name": "x"}).lock()
    override(config, ["a.b=3", "a.c=(4, 5)", "name=hello world"])
    assert (config.a.b, tuple(config.a.c), config.name) == (3, (4, 5), "hello world")
    assert override(config, ["a.new=7"]).a.new == 7  # its reader checks the name
    for assignment, said in (
        ("namme=1", "did you mean 'name'"),
        ("z.b=1", "unknown config key 'z'"),
        ("a.b=text", "does not fit"),
        ("a.b", "no '='"),
        ("a.b.c=1", "known here: nothing"),
    ):
        with pytest.raises(UserError, match=said):
            override(config, [assignment])


def test_load_config(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_config(str(tmp_path / "no.py:tiny"))
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="no get_config"):
        load_config(str(tmp_path / "empty.py"))
    (tmp_path / "good.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n    return ConfigDict({'arg': arg})\n"
    )
    assert load_config(str(tmp_path / "good.py:x")).arg == "x"


def test_nearest():
    assert nearest("widht", ["width", "depth"]) == " (did you mean 'width'?)"
    assert nearest("zzz", ["width"]) == ""


def test_trees_round_trips():
    tree = {"b": {"x": np.ones(3), "y": np.zeros((2, 2))}, "a": np.arange(4)}
    flat = trees.flatten(tree)
    assert list(flat) == ["a", "b/x", "b/y"]
    assert trees.unflatten(flat).keys() == tree.keys()
    chosen, rest = trees.split(tree, "^b/")
    assert set(chosen) == {"b/x", "b/y"} and set(rest) == {"a"}
    merged = trees.merge(chosen, rest)
    np.testing.assert_array_equal(merged["b"]["x"], tree["b"]["x"])
    assert trees.count(tree) == 11


def test_streams_are_named():
    import jax

    key = jax.random.key(0)
    data = jax.random.key_data
    a, again, b = (trees.stream(key, n) for n in ("a", "a", "b"))
    assert (data(a) == data(again)).all() and (data(a) != data(b)).any()
    vocab = JointVocab()
    assert vocab.size == 38_714
    codes = np.array([0, 8191])
    joint = vocab.image_to_joint(codes)
    assert joint.tolist() == [30522, 38713]
    assert vocab.joint_to_image(joint).tolist() == [0, 8191]
