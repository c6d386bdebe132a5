"""What attention of linear time costs in likelihood, SPEC E.3.

Masked modelling alone on drawn faces of 168, 336 and 672 px, ":441", ":1764", ":7056"
image tokens, as many a step in each; two layers. `launch/sweep.py` runs both kinds of
attention. The caches are those of the bundled 128 px tokenizer, which is convolutional,
told another size in a copy:

  import json, pathlib, shutil
  for side in 168, 336, 672:
      folder = pathlib.Path(f"runs/vqgan{side}")
      shutil.copytree("gptface_jax/models/vqgan128", folder)
      config = json.loads((folder / "config.json").read_text())
      config["vqgan"]["resolution"] = side
      del config["digests"]  # of weights together with their size
      (folder / "config.json").write_text(json.dumps(config))

  gptface tokenize --images synthetic --limit 800 --data size=168 \\
      --tokenizer runs/vqgan168 --out tokens/long/441
  gptface tokenize --images synthetic --seed 1 --limit 64 --data size=168 \\
      --tokenizer runs/vqgan168 --out tokens/long/441_validation

(336 px: 400 and 32 pictures; 672 px: 64 and 8, drawn at 512 px, --batch-size 1.)
"""

import math

from configs import base
from configs.experiments import masks
from configs.gptface import faces64

_BATCH = {441: 16, 1764: 4, 7056: 1}
_STEPS = {441: 400, 1764: 300, 7056: 60}


def get_config(arg: str = ""):
    arg = base.check(arg, "tiny", *map(str, _BATCH)) or "441"
    if arg == "tiny":
        config = masks.get_config("tiny")
        config.model.cross_modal_heads = 0
        return config
    config = masks.get_config()
    count = int(arg)
    side = math.isqrt(count)
    config.model.transformer.update(num_layers=2, num_heads=2, unroll=2)
    config.model.layout.grid = (side, side)
    config.model.vocab.codebook_size = 4096
    config.model.max_positions = count + 34
    config.model.cross_modal_heads = 0  # for which keys differ between heads
    config.objective.text_weight = config.objective.text_fraction = 0.0
    config.data.train = faces64.tokens(f"long/{count}")
    config.data.eval = faces64.tokens(f"long/{count}_validation")
    config.data.eval_records = 16
    config.batch_size = _BATCH[count]
    config.total_steps = _STEPS[count]
    config.eval_every = config.checkpoint_every = config.total_steps // 4
    return config


def get_sweep():
    return {"softmax": {}, "linear": {"model.transformer.attention": "linear"}}
