"""Stage 2 of Faceptor on MORPH II, Layer-Attention for one task: see `stage2.py`."""

from configs.faceptor.stage2 import stage2


def get_config(arg: str = ""):
    return stage2("age_morph2", arg)
