"""How many tokens an iteration commits, and which (claims G7, G8).

`gptface evaluate edits --methods configs/experiments/decoding.py`
"""


def get_sweep():
    plain = {"guidance": "none", "match_token": True}
    sizes = {f"k_{k}": {**plain, "k": k} for k in (1, 2, 4, 8, 16, 64)}
    orders = {
        "global_k_8": {**plain, "select": "global"},
        # Noise that drowns the confidences.
        "random_k_8": {**plain, "select": "global", "confidence_noise": 1e6},
    }
    return sizes | orders
