"""What an edit of the bundled model may take by default, at 15 to 16 forward passes an
iteration. `gptface evaluate edits --methods configs/experiments/defaults.py`.
"""

PLAIN = {"guidance": "none", "match_token": True, "samples": 16}


def get_sweep():
    return {
        "match_token_x16": PLAIN,
        "text_x16": {**PLAIN, "match_token": False},
        "match_token_ascent_norm_x3": {
            "guidance": "ascent_norm", "match_token": True, "samples": 3,
        },
        **{
            f"match_token_cfg_{w}_x8": {**PLAIN, "cfg": float(w), "samples": 8}
            for w in (2, 3, 4)
        },
        "match_token_warm_x16": {**PLAIN, "temperature": 1.0, "temperature_end": 0.7},
    }  # fmt: skip
