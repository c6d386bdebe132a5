"""Stage 2 of Faceptor on RAF-DB, Layer-Attention for one task: see `stage2.py`."""

from configs.faceptor.stage2 import stage2


def get_config(arg: str = ""):
    return stage2("affect_rafdb", arg)
