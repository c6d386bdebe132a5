"""Claims G3, G4 and G19 on photographs that came through `gptface prepare`.

`configs/gptface/faces64.py` on the set of `configs/data/photographs.py`, packed with
all pictures (docs/results/data.md has the commands). "packed" reads the texts that came
with the pictures, of which about a third say anything about a face; "strong" texts that
say it of every labelled picture, "weak" with a chance of 0.1. "mixed" is "packed" with
as many pictures of no face, at equal tokens. Held out: photographs of the same set with
texts that are about them.
"""

from configs import base
from configs.experiments import weak_text
from configs.gptface import faces64


def get_config(arg: str = ""):
    base.check(arg, "tiny")
    config = weak_text.get_config(arg)
    if arg:
        return config
    config.total_steps = 500
    # 125 steps of alignment alone, then 75 of it and matching, then everything.
    config.objective.alignment_alone = 0.25
    config.objective.alignment_until = 0.4
    config.objective.matching_alone = 0.15
    config.eval_every = config.checkpoint_every = 100
    config.data.train = faces64.tokens("photographs_train")
    config.data.eval = faces64.tokens("photographs_validation")
    config.data.captions.from_labels = False
    config.data.captions.hard_fraction = 0.0
    return config


def get_sweep():
    labels = {"data.captions.from_labels": True}
    pictures = faces64.tokens("photographs_train", "textures", weights=(1.0, 1.0))
    return {
        "packed": {},
        "strong": labels,
        "mixed": {"data.train": pictures},
        "weak": {**labels, "data.captions.rho": 0.1, "data.captions.style": "weak"},
    }
