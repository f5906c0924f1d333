"""A model as a bundle whose weights are packed to few bits: a MODEL like any other, and a fraction of the size."""

import pathlib

import jax
import numpy as np

from embed import arrays, bundles, packed_arrays, trees
from embed.errors import UsageError, did_you_mean
from embed.interop import origin
from embed.interop.origin import Trained
from embed.models import api
from embed.models.quantization import PRESETS, Plan, Quantization, from_description
from embed.quantized_arrays import pack, unpack


def run(model, output, quantization: str | None = None) -> None:
    """Writes the bundle `output` of `model`, quantised as a name of PRESETS says, or as the model was trained.

    A model that was trained so keeps every value; of any other the values are rounded, and a line says so. Opened, a packed
    bundle has the float32 parameters that its codes and scales stand for.
    """
    if quantization is not None and quantization not in PRESETS:
        raise UsageError(f"--quantization={quantization}{did_you_mean(quantization, PRESETS)}")
    trained = origin.open_trained(model)
    if trained.image is not None:
        raise UsageError(
            f"--format=bundle packs models of texts, and {trained.folder} has an image tower; leave it as it is"
        )
    chosen = _chosen(trained, quantization)
    shapes = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in trained.shapes.items()}
    plan = chosen.plan(trees.unflatten(shapes), api.build(trained.module).axes)
    print(f"packing    {trained.folder} as {chosen.name}", flush=True)
    stored, changed = _packed(trained, plan)
    _write(output, trained, chosen, plan, stored)
    for note in origin.decoder_notes(trained):
        print(f"note       {note}")
    for line in plan.lines(trained.shapes):
        print(f"weights    {line}")
    if changed:
        print(
            f"note       the values of {changed} arrays were rounded; see what that costs: embed evaluate {output} {model}"
        )
    else:
        print(f"weights    have the values of {trained.folder}, to the bit")
    size = sum(f.stat().st_size for f in pathlib.Path(output).rglob("*") if f.is_file())
    print(f"wrote      {output} ({size / 1e6:.1f} MB)")


def _chosen(trained: Trained, name: str | None) -> Quantization:
    """Returns the quantisation of that name, or that of the model; says where they differ."""
    of_model = trained.description.get("quantization")
    if name is None and of_model is None:
        raise UsageError(
            f"--format=bundle: {trained.folder} was not trained for a quantisation; choose one: --quantization="
            + "|".join(PRESETS)
        )
    if name is None:
        return from_description(of_model)
    if of_model is not None and of_model["name"] != name:
        print(
            f"note       {trained.folder} is quantised as {of_model['name']}; its values are rounded again, as {name}"
        )
    return PRESETS[name]()


def _packed(trained: Trained, plan: Plan) -> tuple[dict[str, np.ndarray], int]:
    """Returns the arrays of the bundle as they are stored, and of how many of the model's the values change."""
    stored, changed = {}, 0
    for path, shape in trained.shapes.items():
        values = trained.read(path)
        if path not in plan.schemes:
            stored[path] = values
            continue
        parts = pack(values, plan.schemes[path], f"{trained.folder}: {path}")
        changed += not np.array_equal(unpack(parts, plan.schemes[path], shape), values)
        stored |= {f"{path}/{name}": part for name, part in parts.items()}
    return stored, changed


def _write(output, trained: Trained, chosen: Quantization, plan: Plan, stored: dict[str, np.ndarray]) -> None:
    """Writes the bundle of packed arrays; whole or not at all."""
    description = {
        **trained.description,
        "architecture": api.describe(trained.module),
        "quantization": chosen.describe(),
        "lineage": {"initial": trained.digest, "quantized": chosen.name, "from": trained.description["lineage"]},
    }
    tokenizer = bundles.tokenizer_file(trained.folder)
    arrays.write_bundle_by_blocks(
        output,
        {path: (x.shape, x.dtype) for path, x in stored.items()},
        {path: arrays.blocks(x.shape, arrays.piece_of(x.shape, x.dtype)) for path, x in stored.items()},
        lambda path, block: stored[path][block],
        bundles.contents(description, tokenizer.name, tokenizer.read_bytes()),
        tree={path: {"shape": list(shape), "dtype": "float32"} for path, shape in trained.shapes.items()},
        packed={"params": {path: packed_arrays.describe(scheme) for path, scheme in plan.schemes.items()}},
    )
