"""Stage 2 of Faceptor on RAF-DB (SPEC C.6): Layer-Attention for one task.

Starts from a run of `base` with --config.init_from. Five more layers are read; they and
the task's queries are learnt, or with ":released", as the released code does, the
layers' projections alone.
"""

from configs.faceptor.stage2 import stage2


def get_config(arg: str = ""):
    return stage2("affect_rafdb", arg)
