"""Data sets of users' own, from mappings and files."""

import json

import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import label_sets, label_templates, label_text
from gptface_jax.data.record import Record

YAML = """
my photos:
  sources: [photos]
  keys:
    gender: {label: Male, values: [female, male]}
    smiling: Smiling
    age: {kind: integer, label: Age}
    age group: {kind: range, label: Age, width: 5}
    mood: {kind: word, values: [calm, merry]}
    lip color: {kind: colour, space: lab}
    hat: {label: Wearing_Hat, values: [no, yes]}
"""
RECORD = Record(
    labels={"Male": 0.0, "Smiling": 1.0, "Age": 33.0, "Wearing_Hat": 1.0},
    facts={"mood": "Merry", "lip color": "188,143,142"},
    source="photos/1.jpg",
)


def test_a_yaml_file(tmp_path):
    (tmp_path / "own.yaml").write_text(YAML)
    table = label_templates.open_table(tmp_path / "own.yaml")
    data_set = label_text.data_set_of(RECORD, table)
    text = label_text.write(data_set.name, data_set.pairs(RECORD))
    assert text == (
        "my photos gender: female; smiling: true; age: 33; age group: 30-34; "
        "mood: merry; lip color: rosy brown; hat: true"
    )
    reading = label_text.read(text, table)
    assert reading.data_set == "my photos" and reading.failures == 0
    assert reading.values["hat"] is True and reading.values["age group"] == "30-34"
    # YAML's no and yes are booleans, and are written as such.
    assert data_set.key("hat").kind.candidates == ("false", "true")


def test_what_is_written_is_read_again(tmp_path):
    """Every data set, and through JSON: a model keeps its own so."""
    plain = json.loads(json.dumps(label_templates.to_mapping(label_sets.TABLE)))
    assert label_templates.from_mapping(plain) == label_sets.TABLE
    (tmp_path / "own.json").write_text(json.dumps(plain, indent="\t"))
    assert label_templates.open_table(tmp_path / "own.json") == label_sets.TABLE


def test_ones_own_takes_the_place():
    table = label_templates.open_table({"faces": {"keys": {"smiling": "Smiling"}}})
    assert [key.name for key in table["faces"].keys] == ["smiling"]
    assert set(table) == set(label_sets.TABLE)
    assert label_templates.open_table(None) == label_sets.TABLE


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"key": {}}, "data set 'x' says 'key'.*'keys'.*it may say keys, sources"),
        (
            {"keys": {"a": {"lable": "x"}}},
            "'a' of data set 'x' says 'lable'.*'label",
        ),
        ({"keys": {"a": {"kind": "integr"}}}, "the kind 'integr'.*'integer'"),
        ({"keys": {"a": {"kind": "word"}}}, "is a word and has no values"),
        ({"keys": {"a": {"values": ["b"]}}}, "values .*; list two or more"),
        ({"keys": {"a": {"values": ["b", "c", "d"]}}}, "boolean with 3 values"),
        ({"keys": {"a": {"kind": "range", "width": 0}}}, "the width 0"),
        ({"keys": {"a": 3}}, "is 3; give a label's name or a mapping"),
        ({"keys": ["a"]}, "are \\['a'\\]; give a mapping"),
        ([], "data set 'x' is \\[\\]; give a mapping"),
        ({"keys": {"A": "x"}}, "'A' of data set 'x' cannot be a name or value"),
    ],
)
def test_faults_are_named(entry, message):
    with pytest.raises(UserError, match=message):
        label_templates.open_table({"x": entry})


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="label sets '.*none.yaml': No such file"):
        label_templates.open_table(tmp_path / "none.yaml")
    for name, text, message in (
        ("a.yaml", "a: [", "not readable"),
        ("a.json", "{", "not readable"),
        ("b.yaml", "- a", "hold no mapping"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            label_templates.open_table(tmp_path / name)
