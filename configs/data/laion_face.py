"""LAION-FACE as img2dataset fetched it -> training shards of GPTFace (SPEC A).

    gptface data detections sample2detect_0.pth --out laion_face_detections/0  # to 31
    gptface prepare --config configs/data/laion_face.py --out sets/laion_face

Faces are not aligned, as in the paper; its pictures have 336 pixels a side. Set
image_ids.tokenizer to a VQGAN of that size for token shards. ":tiny" prepares drawn
faces instead, in seconds. docs/data.md says what to expect of time and memory.
"""

from ml_collections import ConfigDict

from configs.base import check


def get_config(arg: str = "") -> ConfigDict:
    check(arg, "tiny")
    config = ConfigDict(
        {
            # `gptface_jax.data.prepare.readers` lists the kinds.
            "sources": (
                {
                    "kind": "webdataset",
                    "path": "laion_face_data",
                    "name": "laion_face",
                    "detections": "laion_face_detections",
                },
            ),
            "unit_size": 2048,
            # Addresses, domains and digests of who does not want to be in the set.
            "opt_out": "",
            "keep_rejected": 24,
            "decoding": {"max_pixels": 64_000_000, "max_bytes": 64 << 20},
            "faces": {"known": True, "every": False, "min_score": 0.6},
            "filters": {
                "min_side": 64,
                "min_face": 48.0,
                "min_sharpness": 0.0,
                "max_yaw": 75.0,
                "max_roll": 60.0,
                # Later sets than LAION-400M have a score.
                "max_scores": {"punsafe": 0.5},
                # Its own column: UNLIKELY, UNSURE or NSFW.
                "allowed": {"NSFW": ("UNLIKELY",)},
                "exact_duplicates": True,
                "near_duplicates": 2,
            },
            "crop": {
                "mode": "context",
                "context": 2.0,
                "size": 336,
                "enlarged": 3.0,
                "beyond": 0.25,
                "encoding": "jpeg",
                "quality": 95,
            },
            "texts": {
                "required": True,
                "min_words": 2,
                "max_words": 64,
                "max_bytes": 65_536,
                "language": "en",
                "min_probability": 0.02,
                "vocab": "",
                "max_tokens": 64,
            },
            "split": {"validation": 0.002, "test": 0.0, "salt": ""},
            "image_ids": {"tokenizer": "", "batch_size": 64, "keep_pictures": False},
        }
    )
    return tiny(config) if arg else config


def tiny(config: ConfigDict) -> ConfigDict:
    """Drawn faces, whose landmarks say where they are: no network, no files."""
    config.sources = ({"kind": "synthetic", "count": 24, "size": 64},)
    config.unit_size = 8
    config.filters.min_face = 16.0
    config.crop.size = 64
    config.texts.language = ""
    config.split.validation = 0.2
    return config
