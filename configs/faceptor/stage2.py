"""What the configs of Faceptor's stage 2 share (SPEC C.6)."""

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
