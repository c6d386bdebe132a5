"""A FaceGPT for 64 px on CPU that answers in words and ends its answers in a 3D head.

    gptface prepare --images rendered --limit 8000 --data size=64 \\
      --out pictures/rendered
    gptface prepare --images rendered --limit 512 --seed 1 --data size=64 \\
      --out pictures/rendered_eval
    gptface train --config configs/facegpt/chat.py --workdir runs/chat

As `configs/facegpt/faces64.py:discrete`, on rendered faces alone until
`data.train.photos` and `data.train.pairs` name a source, and beside it sequences: a
rendered face, what is asked of it, the answer, and its codes.
"""

from configs import base
from configs.facegpt import faces64


def get_config(arg: str = ""):
    base.check(arg, "tiny")
    config = faces64.get_config("discrete")
    config.system = "chat"
    # Picture, prompt, answer and head; a third of the words of a long sentence is left.
    config.model.update(segments=3, length=128, max_positions=128)
    config.objective.update(
        answers={"pooled": False, "text_weight": 1.0, "face_weight": 1.0},
        answers_weight=1.0,
    )
    config.data.tasks = {
        "max_attributes": 1,  # an answer answers one question
        "given_fraction": 1.0,
        "name_data_sets": False,  # there is one
    }
    if arg == "tiny":
        faces64.tiny(config)
        config.model.vocab.face_tokens = 5 + 10 * 8
        config.model.faces.update(slots=2, codes=8)
        config.model.update(length=128, max_positions=128)
    return config
