"""Ways to steer, as changes to the decoder of `weak_text` models (claims G4-G8).

`gptface evaluate edits --methods configs/experiments/guidance.py`; "samples" are
candidates of which the best match is kept. The first nine cost about as much as one
another: four to six forward passes an iteration.
"""

PLAIN = {"guidance": "none", "match_token": False}
GUIDED = {"guidance": "ascent_norm", "match_token": False}


def get_sweep():
    free = {**GUIDED, "kl_max": 0.0, "fusion": 1.0}
    return {
        # At equal cost.
        "text_x4": {**PLAIN, "samples": 4},
        "match_token_x4": {**PLAIN, "match_token": True, "samples": 4},
        "cfg_2_x2": {**PLAIN, "cfg": 2.0, "samples": 2},
        "cfg_4_x2": {**PLAIN, "cfg": 4.0, "samples": 2},
        "ascent_norm": GUIDED,
        "ascent_norm_no_text": {**GUIDED, "eq6": True},
        "embedding_1": {**GUIDED, "guidance": "embedding", "step_size": 1.0},
        "match_token_ascent_norm": {**GUIDED, "match_token": True},
        "cfg_2_ascent_norm": {**GUIDED, "cfg": 2.0},
        # What an edit takes by default, and without the gradient.
        "match_token_ascent_norm_x4": {**GUIDED, "match_token": True, "samples": 4},
        "match_token_x16": {**PLAIN, "match_token": True, "samples": 16},
        # One sample of those without a gradient.
        "text": PLAIN,
        "match_token": {**PLAIN, "match_token": True},
        "cfg_2": {**PLAIN, "cfg": 2.0},
        # Rules and steps.
        "ascent_norm_3_steps": {**GUIDED, "num_steps": 3},
        "ascent_norm_free": free,
        "ascent_norm_0.03_free": {**free, "step_size": 0.03},
        "ascent_layer": {**GUIDED, "guidance": "ascent_layer"},
        "ascent_0.1": {**GUIDED, "guidance": "ascent", "step_size": 0.1},
        "last_2_blocks": {**GUIDED, "last_blocks": 2},
        # Equation 7 as printed: the text by the gradient alone.
        **{
            f"literal_{rate:g}": {
                **PLAIN, "guidance": "literal", "step_size": rate, "eq6": True,
            }
            for rate in (1e-3, 1e-2, 1e-1, 1.0)
        },
        # Restored or not (G5).
        "free_restored": free,
        "free_accumulated": {**free, "restore": False},
    }  # fmt: skip
