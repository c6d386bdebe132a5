"""Templates of the model cards that `apps.exporting` writes."""

LIMITS = """\
## Limits and bias

The pictures and their labels decide what the model believes: which faces look
ordinary to it, how words such as "man", "woman", "young" are drawn, and which
attributes it knows at all. Labels that a machine predicted carry that machine's
errors. Faces, poses, ages and skin tones that are rare in the training data are
edited worse. An edit shows what is likely under that data, never what a person
really looks like without a beard, a mask or with another expression.

## Use

For research and for editing one's own pictures or those of consenting people. Not
for deceiving anybody, not for identifying people, not for inferring attributes of
real persons. Every edited picture is marked as edited in its metadata, and its JSON
sidecar records how it was made.
"""

EDITOR = """\
---
library_name: gptface_jax
tags: [jax, flax, face, image-editing]
---
# {name}

{description}

GPTFace (arXiv 2510.18345) in JAX/Flax, made with gptface_jax {version}: a VQGAN
({vqgan_millions:.2f} M parameters, {size} px, {grid} tokens of {codes} codes) and a
transformer ({gptface_millions:.2f} M parameters). It edits a masked region of a face
photograph so that a sentence fits it.

```python
import gptface_jax
model = gptface_jax.load("{name}")
edit = model.edit("photo.jpg", text="a smiling woman", region="mouth")
edit.save("edited.png")
```

## Trained on

VQGAN: `{vqgan_data}`, {vqgan_step} steps of {vqgan_batch}.
Transformer: `{gptface_data}`, {gptface_step} steps of {gptface_batch}.

{limits}"""

TOKENIZER = """\
---
library_name: gptface_jax
tags: [jax, flax, vqgan]
---
# {name}

{description}

A VQGAN in JAX/Flax ({vqgan_millions:.2f} M parameters, {size} px, {grid} tokens of
{codes} codes), made with gptface_jax {version}. {origin}

```bash
gptface reconstruct --tokenizer {name} --images my_photos --out grid.png
gptface tokenize --tokenizer {name} --images my_photos --out my_tokens
```

What was rare in its training pictures it reconstructs worse.
"""


RUN = """\
---
library_name: gptface_jax
---
# {name}

{description}

A network of the system `{system}` in JAX/Flax ({millions:.2f} M parameters), made with
gptface_jax {version}. Trained on `{data}`, {steps} steps of {batch}.

{limits}"""

RARE = """\
What was rare in its training data it knows less of.
"""


IMPORTED = """\
---
library_name: gptface_jax
---
# {name}

A Talk2Face (prefix language model over faces and words, {millions:.2f} M parameters)
imported from `{checkpoint}` of TencentPretrain by gptface_jax {version}. Its encoder is
given pixels by pixel_map `{pixel_map}`.

Its licence and its limits are those of that checkpoint. What it says of a person is
what was likely in its training data, and no fact about anybody.
"""


PERCEPTION = """\
---
library_name: gptface_jax
---
# {name}

A network of Faceptor's kind ({millions:.2f} M parameters), imported from `{checkpoint}`
by gptface_jax {version}. Tasks: {tasks}.

Its licence and its limits are those of that checkpoint. Faces are brought into this
project's frame, not into those of the data sets that it was trained on. What it says
of a person is a guess by appearance, and no fact about anybody.
"""
