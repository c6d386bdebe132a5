"""Photos of a source, read ahead by threads."""

import numpy as np
import pytest
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import photo_batches, sources


def test_photo_batches_are_in_order_and_read_ahead(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(21):
        photo = Image.fromarray(np.full((24, 20 + i, 3), i, np.uint8))
        photo.save(tmp_path / f"photos/{i:02d}.png")
    source = sources.open_source({"kind": "folder", "path": tmp_path / "photos"})
    batches = list(photo_batches.photo_batches(source, 16, 8, False, threads=3))
    assert [p.shape for _, p in batches] == [(8, 16, 16, 3)] * 2 + [(5, 16, 16, 3)]
    names = [r.source for records, _ in batches for r in records]
    assert names == [f"photos/{i:02d}.png" for i in range(21)]
    levels = [int(photo.mean()) for _, photos in batches for photo in photos]
    assert levels == list(range(21))
    with pytest.raises(UserError, match="-1 threads cannot read"):
        next(photo_batches.photo_batches(source, 16, 8, False, threads=-1))
