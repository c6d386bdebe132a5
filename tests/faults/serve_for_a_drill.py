"""`gptface serve` whose files go after some seconds: MODEL PORT SECONDS FOLDER."""

import sys
import tempfile
import threading

import gptface_jax
from gptface_jax.apps.web import server

source, port, keep, folder = sys.argv[1:]
tempfile.tempdir = folder
model = gptface_jax.load(source)
with server.serving(model, port=int(port), keep=float(keep)) as address:
    print(address, flush=True)
    threading.Event().wait()
