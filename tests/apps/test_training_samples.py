"""The pictures that a run leaves of what it can do."""

import numpy as np
import pytest
from PIL import Image

from gptface_jax.core.config import load_config, override
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import training


def test_a_tokenizer_shows_its_reconstructions(tiny):
    files = sorted((tiny / "vqgan" / "samples").iterdir())
    assert files[-1].name == "reconstructions_0000004.png"
    page = np.asarray(Image.open(files[-1]))
    assert page.shape[2] == 3 and page.std() > 10


@pytest.fixture
def config(tiny):
    tokens = {"kind": "tokens", "path": str(tiny / "tokens")}
    return override(
        load_config("configs/gptface/faces64.py:tiny"),
        [
            "data.image_ids=cache",
            f"data.train={tokens}",
            f"data.eval={tokens}",
            "total_steps=2",
        ],
    )


@pytest.mark.slow
def test_a_gptface_shows_edits_by_own_and_other_texts(config, tiny, tmp_path):
    config.data.tokenizer = str(tiny / "model")
    training.train(config, tmp_path, progress=False)
    (file,) = (tmp_path / "samples").iterdir()
    assert file.name == "edits_0000002.png"
    page = np.asarray(Image.open(file))
    # Six columns and three rows of cells.
    assert page.shape[1] == 6 * 168 + 8 and page.shape[0] > 3 * 160
    # Red shows what was drawn anew.
    red = page[:160].astype(int)
    assert (red[..., 0] - red[..., 1] > 60).mean() > 0.1


def test_another_tokenizer_is_refused(config, tiny, tmp_path):
    config.data.tokenizer = "gptface_jax/models/demo64"
    with pytest.raises(UserError, match="made by .*; name the tokenizer of the cache"):
        training.build(config, tmp_path)
