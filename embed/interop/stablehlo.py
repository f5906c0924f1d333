"""A model as one StableHLO program that jax alone reloads, for any batch and any length, on CPU, GPU and TPU."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from embed import arrays, files
from embed.errors import DataError
from embed.interop.exporting import Trained
from embed.models import api

PROGRAM = "model.stablehlo"
PARAMETERS = "parameters.npz"
_PLATFORMS = ("cpu", "cuda", "tpu")


def write(folder: pathlib.Path, trained: Trained) -> None:
    """Writes the program (parameters, token_ids int32 [b, l], mask bool [b, l]) -> float32 [b, E] and its parameters."""
    model = api.build(trained.module)
    batch, length = jax.export.symbolic_shape("b, l", constraints=["b >= 1", "l >= 1", f"l <= {trained.max_length}"])
    params = {p: jax.ShapeDtypeStruct(s, jnp.float32) for p, s in trained.shapes.items()}
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    mask = jax.ShapeDtypeStruct((batch, length), jnp.bool_)

    def embed(parameters, token_ids, mask):
        return model.apply(arrays.unflatten(parameters), token_ids, mask)

    exported = jax.export.export(jax.jit(embed), platforms=_PLATFORMS)(params, tokens, mask)
    (folder / PROGRAM).write_bytes(exported.serialize())
    np.savez(folder / PARAMETERS, **{path: trained.read(path) for path in trained.shapes})
    (folder / trained.tokenizer.filename).write_bytes(trained.tokenizer.content())
    description = {k: v for k, v in trained.description.items() if k != "architecture"}
    files.write_json(folder / "model.json", {**description, "padding_token_id": trained.tokenizer.pad_id})


def load(folder):
    """Returns embed(token_ids, mask) of an exported folder."""
    folder = pathlib.Path(folder)
    try:
        program = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
        with open(folder / PARAMETERS, "rb") as f, np.load(f, allow_pickle=False) as stored:
            params = {name: jnp.asarray(stored[name]) for name in stored.files}
    except Exception as e:  # flatbuffers and zip files fail in many types
        raise DataError(f"{folder}: not a whole StableHLO export ({str(e)[:120]}); export the model again") from e
    call = jax.jit(program.call)
    return lambda token_ids, mask: np.asarray(call(params, token_ids, mask))


USAGE = """```python
import jax, numpy as np
from tokenizers import Tokenizer        # or sentencepiece, where the folder has tokenizer.model

program = jax.export.deserialize(bytearray(open("{folder}/model.stablehlo", "rb").read()))
parameters = dict(np.load("{folder}/parameters.npz"))
ids = Tokenizer.from_file("{folder}/tokenizer.json").encode("{prompt}What is the capital of France?").ids
vectors = program.call(parameters, np.array([ids], np.int32), np.ones((1, len(ids)), bool))
```
"""
