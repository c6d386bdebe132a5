"""What Talk2Face gains by joint data, names of conventions and kinds of age tokens.

Claims T1, T3, T4 and T8 of SPEC appendix 1, on drawn faces: `configs/talk2face/faces64`
with 4,000 faces labelled as three data sets each, "studio", "street" and "album", which
differ in words and in what they call a smile. A quarter of an hour of one core a point:

  python launch/sweep.py --config configs/experiments/talk2face.py --out runs/talk2face
  gptface evaluate answers --model runs/talk2face/joint --tokenizer demo64 \\
      --images synthetic --seed 77 --convention studio --balanced

T1   joint against studio, street and album, as many steps each, by three trainings:
     joint, joint_1 and joint_2 have seeds 0, 1 and 2, the others likewise
T3   age_digits and age_ordinal against age_word
T4   two_named against two_unnamed: a smile of two conventions
T8   the log of joint
"""

from configs import base
from configs.talk2face import faces64

SETS = ("studio", "street", "album")
SEEDS = (1, 2)  # of T1, besides 0


def get_config(arg: str = ""):
    arg = base.check(arg, "tiny")
    config = faces64.get_config(arg)
    if arg == "tiny":
        return config
    config.total_steps = 1500
    config.eval_every = config.checkpoint_every = 150
    config.best_metric = ""  # the last, of all of them
    config.data.train = named(SETS)
    held_out = {"kind": "tokens", "path": "tokens/synthetic_validation"}
    config.data.eval = {
        "kind": "mixture",
        "sources": tuple(
            {"kind": "named", "name": name, "source": held_out} for name in SETS
        ),
    }
    return config


def named(sets: tuple[str, ...]) -> dict:
    """The third of the drawn faces that belongs to each set."""
    drawn = {"kind": "tokens", "path": "tokens/synthetic_train"}
    parts = tuple(
        {"kind": "named", "name": name, "source": drawn,
         "start": 4000 * SETS.index(name), "stop": 4000 * (SETS.index(name) + 1)}
        for name in sets
    )  # fmt: skip
    return {"kind": "mixture", "sources": parts}


def get_sweep():
    # studio is age_word too
    trained = {"joint": {}, **{name: {"data.train": named((name,))} for name in SETS}}
    again = {
        f"{name}_{seed}": {**changes, "seed": seed}
        for seed in SEEDS
        for name, changes in trained.items()
    }
    ages = {
        f"age_{kind}": {"data.train": named(("studio",)), "data.tasks.age_tokens": kind}
        for kind in ("digits", "ordinal")
    }
    two = {"data.train": named(("studio", "street"))}
    return {
        **trained,
        **ages,
        "two_named": two,
        "two_unnamed": {**two, "data.tasks.name_data_sets": False},
        **again,
    }
