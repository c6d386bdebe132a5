"""Groups of drawn people, read and edited by the tiny model."""

import json

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import phrases
from gptface_jax.protocols import groups
from gptface_jax.protocols.editors import Edited


def test_people_differ_in_their_group_alone():
    people = groups.drawn(2, 5, 32)
    assert len(people) == 2 * 12
    cells = np.arange(24).reshape(2, *groups.SHAPE)
    for name, place, truth in (("Male", 2, (False, True)), ("Young", 3, (True, False))):
        for i, wanted in enumerate(truth):
            for number in np.take(cells, i, place).flat:
                assert phrases.known(people[number].labels, name) is wanted
    assert {people[n].identity for n in cells[1].flat} == {1}
    # Darker skin makes a darker picture, and changes no label but that of pale skin.
    light, dark = (people[cells[0, i, 0, 0]] for i in (0, 2))
    assert light.image.mean() > dark.image.mean() + 3
    changed = {k for k in light.labels if light.labels[k] != dark.labels[k]}
    assert changed == {"Pale_Skin"}
    with pytest.raises(UserError, match="0 people"):
        groups.drawn(0, 0, 32)


def test_readings_and_edits_of_a_model(model, gptface_command, tmp_path, capsys):
    out = tmp_path / "groups.json"
    with pytest.raises(UserError, match="no words for attribute 'Smilling'"):
        groups.readings(groups.by_matching(model), groups.drawn(1, 0, 32), ["Smilling"])
    people = groups.drawn(2, 0, model.editor.size)
    found = groups.readings(groups.by_matching(model), people, ["Smiling", "Male"])
    assert set(found["groups"]["skin"]) == {"light", "medium", "dark"}
    assert 0 <= found["worst"]["accuracy"] <= found["best"]["accuracy"] <= 1
    assert "| skin: dark |" in groups.table(found)
    command = ("evaluate", "groups", "--limit", 1, "--audit", 2, "--out", out)
    assert gptface_command(*command) == 2
    assert "--audit needs --judge" in capsys.readouterr().err
    assert json.dumps(found)


class LightIsAll:
    """A judge that finds everything that it is asked for, in light pictures only."""

    attributes = ("Smiling", "Male")

    def check(self, names):
        assert set(names) <= set(self.attributes)

    def __call__(self, pictures):
        light = pictures.reshape(len(pictures), -1).mean(1) > 127
        return np.repeat(light[:, None], 2, 1)


def test_success_of_edits_by_group():
    """An editor that whitens light people when asked, and blackens all else."""

    def edit(photos, task, progress):
        progress(len(photos))
        level = photos.reshape(len(photos), -1).mean(1) > 90
        white = (level & task.present)[:, None, None, None]
        return Edited(np.where(white, 255, 0) * np.ones_like(photos))

    people = groups.drawn(2, 5, 32)
    found = groups.edited(edit, LightIsAll(), people, ["Smiling"], 32, progress=False)
    rates = [found["skin"][g]["asked"] for g in ("light", "medium", "dark")]
    assert rates[0] >= rates[1] >= rates[2] and rates[0] > rates[2]
    assert found["skin"]["light"]["opposite"] == 0
    assert "| skin: dark |" in groups.group_table(found)


def test_who_is_drawn_after_a_text_that_says_nothing():
    pictures = np.stack([np.full((8, 8, 3), v, np.uint8) for v in (0, 119, 255, 255)])
    five = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.5], [0.35, 0.7], [0.65, 0.7]])
    found = groups.audited(pictures, LightIsAll(), five)
    assert found["male"] == 0.5 and found["pictures"] == 4 and "young" not in found
    np.testing.assert_allclose(found["skin luminance"], [37.6, 75.0, 100.0], atol=0.4)
    assert "skin luminance" not in groups.audited(pictures, LightIsAll(), None)
