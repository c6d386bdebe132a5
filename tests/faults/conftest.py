import pathlib
import sys

# The small system and the worker processes of the engine's own tests.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "train"))
