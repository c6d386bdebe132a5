"""Arguments are what their annotations say, whoever gives them."""

import dataclasses
import math

import numpy as np
import pytest

import gptface_jax
from gptface_jax.core import arguments
from gptface_jax.core.errors import UserError


@dataclasses.dataclass
class Options:
    k: int = 8
    end: float | None = None


def verb(
    text: str, mask: str | bytes | np.ndarray | None = None, *, count: int = 1,
    scale: float = 1.0, on: bool = True, face: int | str | None = None,
    box: tuple[int, int] | None = None, **options,
):  # fmt: skip
    return {"text": text, "mask": mask, "count": count, "on": on, **options}


def test_values_of_the_right_type_go_through():
    given = {"text": "a", "count": np.int64(3), "scale": 2, "face": "all", "k": 4.0}
    found = arguments.checked(verb, {**given, "box": np.array([1, 2])}, Options)
    assert found == {**given, "count": 3, "k": 4, "box": (1, 2)}
    assert type(found["count"]) is int and type(found["k"]) is int
    other = {"unknown": object()}
    assert arguments.checked(verb, other, Options) == other


def test_null_and_nan_are_not_given():
    for nothing in (None, math.nan, np.float32("nan")):
        values = dict.fromkeys(("mask", "count", "on", "k", "end"), nothing)
        # None stays where it means something of its own.
        assert arguments.checked(verb, values, Options) == {"mask": None, "end": None}
        with pytest.raises(UserError, match="'text' is missing; give a text"):
            arguments.checked(verb, {"text": nothing}, Options)
    assert arguments.call_checked(verb, ("a",), {"count": None, "k": 2}, Options) == {
        "text": "a", "mask": None, "count": 1, "on": True, "k": 2
    }  # fmt: skip


def test_all_arguments_with_their_defaults():
    class Thing:
        def verb(self, image: str, *, count: int = 1, end: float | None = None, **more):
            raise AssertionError

    given, others = arguments.complete(
        Thing.verb, {"image": "a", "count": None, "k": 4.0}, Options
    )
    assert given == {"image": "a", "count": 1, "end": None} and others == {"k": 4}
    with pytest.raises(UserError, match="k is '4'"):
        arguments.complete(Thing.verb, {"image": "a", "k": "4"}, Options)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("text", ["a", "b"], "['a', 'b']; give a text"),
        ("text", 1, "1; give a text"),
        ("count", "1", "'1'; give a whole number"),
        ("count", 1.5, "1.5; give a whole number"),
        ("count", True, "True; give a whole number"),
        ("count", math.inf, "inf; give a whole number"),
        ("scale", "x", "'x'; give a number"),
        ("on", "false", "'false'; give true or false"),
        ("on", 0, "0; give true or false"),
        ("mask", 3, "3; give a picture or its file"),
        ("face", 1.5, "1.5; give a whole number or a text"),
        ("box", [1, 2, 3], "[1, 2, 3]; give 2 whole numbers"),
        ("box", [1, "2"], "[1, '2']; give 2 whole numbers"),
        ("k", "8", "'8'; give a whole number"),
        ("end", "8", "'8'; give a number"),
    ],
)
def test_values_of_another_type_are_refused(name, value, said):
    with pytest.raises(UserError) as caught:
        arguments.checked(verb, {name: value}, Options)
    assert str(caught.value) == f"{name} is {said}"


def test_every_verb_is_checked(tiny):
    model = gptface_jax.load(tiny / "model")
    photo = np.zeros((40, 40, 3), np.uint8)
    for call, said in (
        (lambda: model.edit(photo, None), "the text is empty"),
        (lambda: model.edit(photo, ["a", "b"]), "text is"),
        (lambda: model.edit(photo, "a", region="hat", composite="no"), "composite is"),
        (lambda: model.edit(photo, "a", region="hat", samples="4"), "samples is"),
        (lambda: model.edit(None, "a", region="hat"), "'image' is missing"),
        (lambda: model.inpaint(photo, region=3), "region is 3"),
        (lambda: model.inpaint(photo, region="hat", k="4"), "k is '4'"),
        (lambda: model.restore(photo, thin="1"), "thin is '1'"),
        (lambda: model.stitch(photo, photo, band="1"), "band is '1'"),
        (lambda: model.propose(photo, 3), "text is 3"),
        (lambda: model.sample("2"), "count is '2'"),
        (lambda: model.match(photo, "a man"), "give a list of texts"),
        (lambda: model.tag(photo, 2.5), "count is 2.5"),
        (lambda: model.caption(photo, words="8"), "words is '8'"),
        (lambda: model.faces(photo, any_roll="no"), "any_roll is 'no'"),
        (lambda: model.reconstruct(3), "image is 3"),
    ):
        with pytest.raises(UserError, match=said):
            call()
