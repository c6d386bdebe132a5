"""Photos are described in batches, and as one would be alone."""

import json

import numpy as np
import pytest
from PIL import Image

from gptface_jax.apps import batch
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.pipelines import rows


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        ("tag", {"count": 3}),
        pytest.param("caption", {"words": 2, "samples": 3}, marks=pytest.mark.slow),
    ],
)
def test_photos_are_described_together(model, tmp_path, monkeypatch, verb, given):
    faces = SyntheticFaces(size=40, count=2, seed=3)
    for i in range(2):
        Image.fromarray(faces[i].image).save(tmp_path / f"{i}.png")
    asked, plain = [], rows.answer

    def answer(requests, size=1):
        asked.append(len(requests))
        return plain(requests, size)

    monkeypatch.setattr(rows, "answer", answer)
    jobs = batch.read_jobs(tmp_path, verb, {**given, "align": False})
    out = tmp_path / "out"
    batch.run(model, jobs, out, verb=verb, batch_size=2, progress=False)
    assert set(asked) == {2}
    written = map(json.loads, (out / "results.jsonl").open())
    for job, row in zip(jobs, written, strict=True):
        alone = getattr(model, verb)(**job.values, seed=job.seed)
        found = row["found"]
        if verb == "tag":
            alone = [(t.word, t.score, t.probability, t.match) for t in alone]
            found = [tuple(tag.values()) for tag in found]
            assert len(found) == 3 and found[0][1] >= found[1][1]
        for one, other in zip(found, alone, strict=True):
            assert one[0] == other[0]
            np.testing.assert_allclose(one[1:], other[1:], rtol=1e-4)
