"""How much is masked, and in what shape (claims G1, G2).

Masked modelling alone, on photographs and drawn faces at 64 px; a quarter of an hour of
one core a point. `launch/sweep.py` runs them, `gptface evaluate masked` compares.
":mini" is `configs/gptface/mini.py`, for a GPU.
"""

from configs import base
from configs.gptface import faces64, mini


def get_config(arg: str = ""):
    arg = base.check(arg, "tiny", "mini")
    config = mini.get_config() if arg == "mini" else faces64.get_config(arg)
    config.model.match_token = False
    config.model.contrastive_width = 0
    config.model.word_bag = False
    config.objective = {
        "ratio_schedule": "rescaled",
        "clean_fraction": 0.0,
        "span_fraction": 1.0,
        "negative_fraction": 0.0,
        "itm_weight": 0.0,
        "text_weight": 0.15,
        "text_fraction": 0.4,
    }
    config.data.captions.hard_fraction = 0.0
    config.best_metric = ""  # all after equally many steps
    config.total_steps = 1200
    config.eval_every = config.checkpoint_every = 300
    config.data.threads = 1
    if arg == "mini":
        config.batch_size = 128
        config.data.workers = 1
    if arg == "tiny":
        base.tiny(config)
        config.objective.text_fraction = 1.0  # some at every step
    return config


def get_sweep():
    def ratios(low, high):
        return {
            "objective.ratio_schedule": "uniform",
            "objective.wide_range": (low, high),
        }

    return {
        "span": {},  # the paper's: spans, growing from 15 to 65 %
        "random": {"objective.span_fraction": 0.0},
        "mixed": {"objective.span_fraction": 0.5},
        "span_15": ratios(0.15, 0.15),
        "span_40": ratios(0.4, 0.4),
        "span_10_to_100": ratios(0.1, 1.0),
    }
