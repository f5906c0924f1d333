"""A MODEL opened: verified parameters, tokenizer and prompts, ready to encode."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from embed import architectures, bundles, checkpoints, files, packed_arrays, sharding
from embed.buckets import copies
from embed.data import tokenizers
from embed.errors import DataError, UsageError
from embed.inference import arguments, forks
from embed.inference import weights as precisions
from embed.inference.encoder import Encoder
from embed.inference.image_encoder import ImageEncoder
from embed.inference.item_encoder import ItemEncoder
from embed.models import api
from embed.types import Item, Model, Params
from embed.vectors import truncate_numpy


@dataclasses.dataclass(frozen=True)
class EmbeddingModel:
    """An open model. `digest` identifies its exact files and how its weights were rounded; `folder` is where they lie.

    `params` lie as they are run (`prepared`), `stored` are shapes, types and layout of those of a checkpoint. `weight_bytes` is
    how large the weights are as they were rounded.
    """

    encoder: ItemEncoder
    params: Params
    stored: Params
    folder: pathlib.Path
    digest: str
    description: dict[str, Any]
    weight_bytes: int = 0

    @property
    def embedding_dim(self) -> int:
        return self.encoder.model.embedding_dim

    @property
    def matryoshka_dims(self) -> tuple[int, ...]:
        return self.encoder.model.matryoshka_dims

    @property
    def prompts(self) -> dict[str, str]:
        return dict(self.encoder.texts.prompts) if self.encoder.texts is not None else {}

    @property
    def max_length(self) -> int | None:
        """The tokens that texts are cut at; None of a model without texts."""
        return None if self.encoder.texts is None else self.encoder.texts.max_length

    @property
    def image_size(self) -> int | None:
        """The side of the square that images are resized to, in pixels; None of a model without images."""
        return None if self.encoder.images is None else self.encoder.images.size

    @property
    def takes_images(self) -> bool:
        return self.encoder.images is not None

    @property
    def reads_images_in_texts(self) -> bool:
        """Whether a text says by [MASK_0] where in it an image belongs."""
        return self.encoder.mixed is not None

    @property
    def dtype(self) -> str:
        """What the encoders compute in: that of the first."""
        first = next(iter(architectures.towers(self.encoder.model.description).values()))
        return first["encoder"].get("dtype", "float32")

    def with_params(self, params) -> "EmbeddingModel":
        """Returns the same model with other parameters, as a checkpoint has them, e.g. an average that is not written yet."""
        placed = jax.tree.map(lambda x, sharded: jax.device_put(np.asarray(x), sharded.sharding), params, self.stored)
        return dataclasses.replace(
            self, params=prepared(placed, self.encoder.model, self.encoder.mesh), digest="unwritten"
        )

    def check_dims(self, dims: int | None) -> None:
        """Raises DataError for a size that the embedding has no prefix of, UsageError for what is no size."""
        if dims is None:
            return
        if not 1 <= arguments.integer(dims, "dims") <= self.embedding_dim:
            raise DataError(f"dims = {dims}; this model gives 1 to {self.embedding_dim}")

    def encode(
        self,
        items: Sequence[str | Item],
        prompt: str = "query",
        dims: int | None = None,
        progress: Callable[[int], None] = lambda texts: None,
        allow_empty: bool = False,
    ) -> np.ndarray:
        """Returns float32 unit vectors [n, E], or [n, dims] scaled back to unit length.

        `items` is a list, an array or a series, a generator, or one item: a text, a `types.Item`, or a dict such as
        {"text": ..., "title": ...}. A model that `takes_images` also takes paths of images, Pillow images and arrays, alone or as
        {"image": ...}. `prompt` is a name or a template. What is no item, and an empty text unless `allow_empty`, is a DataError
        with its position from 0. Several threads may call it at once.
        """
        self.check_dims(dims)
        vectors = self.encoder(self.params, items, prompt=prompt, progress=progress, allow_empty=allow_empty)
        return vectors if dims is None else truncate_numpy(vectors, int(dims))

    def patches(self, items: Sequence[Any], *, values: bool = False) -> tuple[np.ndarray, int, int]:
        """Returns (float32 vectors of patches [n, P, D], rows, columns), after the image tower's last norm.

        `items` are images in the forms of `encode`, one an item. With `values` the tokens of the last block attend to themselves
        alone (MaskCLIP), and patches may be compared with the embeddings of texts. Other items are a DataError with their
        position, and a model without an image tower a UsageError.
        """
        return self.encoder.patches(self.params, items, values=values)


def open_model(
    path,
    *,
    max_length: int | None = None,
    random: bool = False,
    overflow=None,
    dtype: str | None = None,
    weights: str = "float32",
    devices: Sequence[jax.Device] | None = None,
) -> EmbeddingModel:
    """Returns the model that MODEL names, every file that is read verified. `random` gives fresh weights of the same shape.

    `max_length` in tokens defaults to what it was trained for. `dtype`
    replaces the type the encoder computes in; `weights` rounds the parameters first (`weights.rounded`). It runs on
    all devices when none are given; a model that is large for one lies over several of them (`sharding.serving_shape`).
    Wrong arguments are UsageErrors. A process that was forked after JAX had started is refused, as it would hang.
    """
    forks.check()
    folder = bundles.resolve(copies.local(arguments.path(path, "path")))
    _check_options(max_length, random, overflow, dtype, weights, devices)
    manifest = files.verify_manifest(folder, "params")
    description = bundles.read_model_json(folder)
    model = api.build(api.from_description(_to_serve(description["architecture"], dtype)))
    make_texts = _text_encoder(folder, description, model, max_length, overflow)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    devices = list(devices if devices is not None else jax.devices())
    mesh = sharding.make_mesh(sharding.serving_shape(shapes, len(devices), sharding.device_memory(devices)), devices)
    placed = sharding.shardings(model.axes, shapes, mesh)
    target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed)
    if random:
        params = jax.jit(model.init, out_shardings=placed)(jax.random.key(0))
    else:
        params = checkpoints.restore(folder, "params", target, verified=True, without=bundles.UNSERVED)
    size = precisions.size(params, weights, model.axes, packed_arrays.schemes(manifest, "params", folder))
    params = prepared(precisions.rounded(params, weights, model.axes), model, mesh)
    encoder = ItemEncoder(model, mesh, make_texts(mesh), image_encoder(model, mesh))
    digest = "random" if random else files.folder_digest(folder)
    suffix = "" if weights == "float32" else f"-{weights}"
    return EmbeddingModel(encoder, params, target, folder, digest + suffix, description, size)


_MAX_LENGTH = 1 << 24  # tokens; more than tokenizers can be told


def _check_options(max_length, random, overflow, dtype, weights, devices) -> None:
    """Raises UsageError for an option of the wrong type; values are checked where they are used."""
    if max_length is not None and arguments.integer(max_length, "max_length", 1) > _MAX_LENGTH:
        raise UsageError(f"max_length = {max_length}: at most {_MAX_LENGTH:,} tokens")
    arguments.truth(random, "random")
    for name, value in (("dtype", dtype), ("weights", weights)):
        if not (name == "dtype" and value is None):
            arguments.text(value, name)
    precisions.check(weights)
    if overflow is not None and not callable(overflow):
        raise UsageError(f"overflow = {overflow!r} cannot be called; give a function of the texts cut and of all")
    is_list = isinstance(devices, Sequence) and len(devices) and all(isinstance(d, jax.Device) for d in devices)
    if devices is not None and not is_list:
        raise UsageError(f"devices = {devices!r}: give at least one of jax.devices(), in a list")


def _check_length(max_length: int | None, encoder: dict[str, Any]) -> None:
    """Raises UsageError for a length beyond the table of learned positions, where there is one."""
    limit = encoder.get("max_positions", 0) - encoder.get("position_offset", 0)
    if max_length is not None and 0 < limit < max_length:
        raise UsageError(f"max_length = {max_length}: this model has positions for {limit} tokens; lower it")


def _text_encoder(
    folder, description: dict[str, Any], model: Model, max_length: int | None, overflow
) -> Callable[[Mesh], Encoder | None]:
    """Returns what makes the encoder of texts on a mesh, after checking the tokenizer and the length; it makes None of a model of
    images alone."""
    if architectures.takes_no_text(description["architecture"]):
        if max_length is not None:
            raise UsageError(f"max_length = {max_length}: this model takes no texts; leave it out")
        return lambda mesh: None
    _check_length(max_length, architectures.text_encoder(description["architecture"]))
    tokenizer = tokenizers.from_folder(folder, description["tokenizer"])
    max_length = max_length or max(description["lengths"].values())
    tokenizer.check_length(max_length)
    return lambda mesh: Encoder(
        model=model,
        tokenizer=tokenizer,
        prompts=description["prompts"],
        max_length=max_length,
        mesh=mesh,
        text_normalization=description["text_normalization"],
        **({"overflow": overflow} if overflow else {}),
    )


def image_encoder(model: Model, mesh: Mesh) -> ImageEncoder | None:
    """Returns what encodes images with a model; None where it has no image tower."""
    tower = architectures.image_tower(model.description)
    if tower is None:
        return None
    return ImageEncoder(model, tower["image_size"], tower["encoder"].get("patch_size", 16), mesh)


_APART = 12  # layers that are compiled one after the other: faster to run on CPU, slower to compile


def prepared(params: Params, model: Model, mesh: Mesh) -> Params:
    """Returns the parameters of a checkpoint as they are run: in the type of computation, and on a CPU with layers apart."""
    params = cast_once(params, model)
    layers = [tower["encoder"].get("num_layers", 0) for tower in architectures.towers(model.description).values()]
    small = max(layers) <= _APART
    whole = mesh.shape["data"] == mesh.size  # every device has all parameters
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return model.apart(params) if model.apart is not None and small and whole and on_cpu else params


def _to_serve(architecture: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    """Returns the description with what only matters in training left out."""
    return architectures.map_towers(architecture, lambda tower: _tower_to_serve(tower, dtype))


def _tower_to_serve(tower: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    encoder = dict(tower["encoder"])
    if dtype is not None:
        encoder["dtype"] = dtype
    if "attention" in encoder:
        encoder["attention"] = "auto"  # that of training may not run here
    if "unroll" in encoder:
        encoder |= {"unroll": 1, "remat": "none"}
    return {**tower, "encoder": encoder, **({"decoder": None} if "decoder" in tower else {})}


def cast_once(params: Params, model) -> Params:
    """Returns the parameters with the encoders' kernels in the type they compute in, which every call would cast them to."""
    for name, tower in architectures.towers(model.description).items():
        dtype = jnp.dtype(tower["encoder"].get("dtype", "float32"))
        if dtype != jnp.float32:
            cast = _cast(params[name] if name else params, dtype)
            params = {**params, name: cast} if name else cast
    return params


def _cast(params: Params, dtype: jnp.dtype) -> Params:
    cast = lambda path, x: x.astype(dtype) if path[-1].key == "kernel" else x  # noqa: E731
    return {**params, "encoder": jax.tree_util.tree_map_with_path(cast, params["encoder"])}
