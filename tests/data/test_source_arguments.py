"""The command line's arguments that say where photos are."""

import argparse

import pytest

from gptface_jax.cli import _source
from gptface_jax.core.errors import UserError
from gptface_jax.data import sources


def spec(*arguments):
    parser = argparse.ArgumentParser()
    _source.add_arguments(parser)
    return _source.spec(parser.parse_args(["--images", *arguments]))


def test_data_reaches_any_argument():
    given = spec("synthetic", "--data", "size=48", "--data=style=weak", "--limit", "3")
    assert given == {
        **{"kind": "synthetic", "count": 3, "seed": 0, "size": 48, "style": "weak"}
    }
    assert sources.open_source(given)[2].image.shape == (48, 48, 3)
    given = spec("celeb_a", "--data", "data_dir=/x=y", "--data", "text_column='1'")
    assert given["data_dir"] == "/x=y" and given["text_column"] == "1"
    assert given["split"] == "train" and given["name"] == "celeb_a"
    for wrong in ("size", "=3"):
        with pytest.raises(UserError, match="is no KEY=VALUE"):
            spec("synthetic", "--data", wrong)
    with pytest.raises(UserError, match="did you mean 'size'"):
        sources.open_source(spec("synthetic", "--data", "sise=3"))


def test_no_photo_at_all_is_refused():
    for number in ("0", "-1"):
        with pytest.raises(UserError, match=f"--limit {number} uses no photo"):
            spec("synthetic", "--limit", number)
    with pytest.raises(UserError, match="limit is 0; use 1 record or more"):
        sources.open_source({"kind": "synthetic", "limit": 0})


def test_split_is_passed_on_or_refused(tmp_path):
    for kind in ("folder", "parquet", "celeba", "tfds"):
        assert spec("x", "--kind", kind, "--split", "test")["split"] == "test"
    for kind in ("arrayrecord", "synthetic"):
        with pytest.raises(UserError, match=f"--split test .*'{kind}'"):
            spec("x", "--kind", kind, "--split", "test")
    assert "split" not in spec(str(tmp_path))
