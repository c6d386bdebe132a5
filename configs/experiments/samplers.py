"""Better decoding without training (SPEC E.14), at as many forward passes as today's
default, 16 an iteration, or half of them. No weights change.

`gptface evaluate edits --methods configs/experiments/samplers.py`
"""

DEFAULT = {"guidance": "none", "match_token": True, "cfg": 2.0, "samples": 8}


def get_sweep():
    return {
        "default_x8": DEFAULT,
        "global_x8": {**DEFAULT, "select": "global"},
        "halton_x8": {**DEFAULT, "select": "halton"},
        # Positions are chosen before tokens are drawn.
        "entropy_x8": {**DEFAULT, "confidence": "entropy"},
        "remask_x8": {**DEFAULT, "remask": 0.25},
        "cfg_rising_x8": {**DEFAULT, "cfg": 1.0, "cfg_end": 3.0},
        # 25 candidates, 5 after a quarter, 1 after half: as much as 8 to the end.
        "pruned_x25": {**DEFAULT, "samples": 25, "prune_at": (0.25, 0.5)},
        # Keys of known positions are kept: as many passes, of which all but the first
        # (and every fourth) are of the open positions alone.
        "kept_x8": {**DEFAULT, "refresh": 0},
        "kept_4_x8": {**DEFAULT, "refresh": 4},
        # Half of it.
        "default_x4": {**DEFAULT, "samples": 4},
        "pruned_x11": {**DEFAULT, "samples": 11, "prune_at": (0.25, 0.5)},
    }
