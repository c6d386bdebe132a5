"""Stage 2 of Faceptor (SPEC C.6): Layer-Attention for one task, for `stage2_*.py`.

Starts from a run of `base` with --config.init_from. Five more layers are read; they and
the task's queries are learnt, or with ":released", as the released code does, the
layers' projections alone.
"""

from configs import base
from configs.faceptor.base import TASKS, faceptor

LEVELS = (1, 3, 5, 7, 9)


def stage2(task: str, arg: str = ""):
    """One task of a trained model, with the levels of Layer-Attention."""
    base.check(arg, "tiny", "released", "tiny_released")
    config = faceptor(TASKS)
    config.model.decoder.new_levels = LEVELS
    config.objective.stage = 2
    config.objective.trained = "stage2_released" if "released" in arg else "stage2"
    config.objective.weights = {task: 1.0}
    base.set_batches(config, {task: 64})
    config.total_steps = 20_000
    config.optim.groups = {}
    config.data.train = {task: config.data.train[task]}
    config.data.eval = {task: config.data.eval[task]}
    config.best_metric = "eval/loss"
    if "tiny" in arg:
        base.tiny_faceptor(config)
    return config
