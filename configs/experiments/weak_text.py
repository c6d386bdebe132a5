"""What texts that seldom speak of the picture still teach (claims G3-G8).

`configs/gptface/faces64.py` on drawn faces whose caption is about the picture with
probability rho, and else a headline, a shop line or a name. One checkpoint serves every
way of guidance: with match token, and 10 % of the examples without a text. An hour
of one core a point; `launch/sweep.py` runs them. ":mini" is `configs/gptface/mini.py`,
for a GPU.
"""

from configs import base
from configs.gptface import faces64, mini


def get_config(arg: str = ""):
    arg = base.check(arg, "tiny", "mini")
    large = arg == "mini"
    config = mini.get_config() if large else faces64.get_config(arg)
    if arg == "tiny":
        return config
    config.objective.null_fraction = 0.1
    config.total_steps = 1500
    # 200 steps of alignment alone, 125 of matching alone, as in the longer run.
    config.objective.alignment_alone = 0.133
    config.objective.alignment_until = 0.217
    config.objective.matching_alone = 0.083
    config.eval_every = config.checkpoint_every = 250
    config.best_metric = ""  # the last: where texts mean nothing the loss only grows
    tokens = mini.tokens if large else faces64.tokens
    config.data.train = tokens("synthetic_train")
    config.data.eval = tokens("synthetic_validation")
    config.data.threads = 1
    if large:
        config.batch_size = 128
        config.eval_every = config.checkpoint_every = 500
        config.data.workers = 1
    return config


def get_sweep():
    points = {
        f"rho_{rho:g}": {"data.captions.rho": rho} for rho in (0.3, 1.0, 0.1, 0.0)
    }
    seeds = {f"rho_0.3_seed{n}": {"data.captions.rho": 0.3, "seed": n} for n in (1, 2)}
    return points | seeds
