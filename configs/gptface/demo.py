"""The bundled model: `faces64`, trained on photographs and synthetic faces."""

from configs.gptface import faces64


def get_config(arg: str = ""):
    return faces64.get_config(arg)
