"""GPTFace and Talk2Face on one set of weights (SPEC E.16), 64 px on CPU.

The model of `faces64` with three rows for segments (1.25 M parameters), the objectives
of both `faces64` configs, a batch of each in every step, and their caches. Start it
from released weights by `--config.init_from=demo64`: rows of words that it has not met
are added. ":mini" is 128 px at the size of `mini`, for minutes of one GPU.
"""

from configs import base
from configs.gptface import faces64, mini
from configs.talk2face import faces64 as talk2face64
from configs.talk2face import mini as talk2face_mini


def get_config(arg: str = ""):
    base.check(arg, "tiny", "mini")
    ours, theirs = (mini, talk2face_mini) if arg == "mini" else (faces64, talk2face64)
    config, sequences = ours.get_config(), theirs.get_config()
    config.system = "shared"
    config.model.length = sequences.model.length
    config.model.max_positions = sequences.model.max_positions
    # What Talk2Face writes is half of what is learnt; the best by either would not do.
    config.best_metric = ""
    config.objective = {
        "pairs": config.objective.to_dict(),
        "sequences": sequences.objective.to_dict(),
        "weights": (1.0, 1.0),
    }
    config.data.train = {"pairs": config.data.train, "sequences": sequences.data.train}
    config.data.eval = {"pairs": config.data.eval, "sequences": sequences.data.eval}
    config.data.label_sets = ""
    config.data.tasks = sequences.data.tasks.to_dict()
    config.data.tasks.captions = sequences.data.captions.to_dict()
    if arg == "tiny":
        base.tiny_shared(config)
    return config
