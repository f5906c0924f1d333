"""Towers of images and texts against transformers on random weights: TIPSv2, Dinov2, and Dinov2 with registers."""

import jax
import numpy as np
import pytest
import torch
import transformers
from transformers.models.tipsv2 import configuration_tipsv2, modeling_tipsv2

from embed.models import api
from embed.models.dual_encoder import ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.models.vit import VisionTransformer
from embed.trees import unflatten

pytestmark = pytest.mark.parity

WIDTH, LAYERS, HEADS, PATCH, GRID = 48, 3, 4, 4, 16
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
VISION = {**SIZES, "patch_size": PATCH, "image_size": PATCH * GRID}
# Model, configuration, and our fields.
MODELS = {
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config, {"position_resize": "cubic"}),
    "dinov2 with registers": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig,
        {"position_resize": "cubic_antialias", "num_registers": 4},
    ),
    "tipsv2": (
        modeling_tipsv2.Tipsv2VisionModel,
        configuration_tipsv2.Tipsv2VisionConfig,
        {"num_class_tokens": 2, "class_position": False},
    ),
}
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "silu": "silu"}


def drawn(model):
    """Returns a model with no parameter at its start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def blocks_of(read, names) -> dict[str, np.ndarray]:
    """Returns the parameters of all blocks; `read(name)` is a stacked tensor, `names` are ours and theirs."""
    params = {}
    for ours, theirs in names.items():
        weight, bias = read(f"{theirs}.weight"), read(f"{theirs}.bias")
        if ours.endswith("norm"):
            params |= {f"{ours}/scale": weight, f"{ours}/bias": bias}
            continue
        kernel = weight.transpose(0, 2, 1)
        if ours.startswith("attention/"):
            heads = (LAYERS, HEADS, WIDTH // HEADS)
            into = not ours.endswith("output")
            kernel = kernel.reshape(LAYERS, WIDTH, *heads[1:]) if into else kernel.reshape(*heads, WIDTH)
            bias = bias.reshape(heads) if into else bias
        params |= {f"{ours}/kernel": kernel, f"{ours}/bias": bias}
    return {f"encoder/stack/layers/{path}": x for path, x in params.items()}


def attention(prefix, output):
    names = {name: f"{prefix}.{name[0]}_proj" for name in ("query", "key", "value")}
    return {f"attention/{ours}": theirs for ours, theirs in {**names, "output": f"{prefix}.{output}"}.items()}


def vision_params(model, gated: bool, is_tips: bool):
    tensors = {name: x.numpy() for name, x in model.state_dict().items()}
    read = lambda name: np.stack([tensors[f"encoder.layer.{i}.{name}"] for i in range(LAYERS)])  # noqa: E731
    mlp = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"} if gated else {"up": "fc1", "down": "fc2"}
    names = {"attention_norm": "norm1", "mlp_norm": "norm2", **attention("attention", "o_proj")}
    params = blocks_of(read, names | {f"mlp/{ours}": f"mlp.{theirs}" for ours, theirs in mlp.items()})
    for ours, theirs in (("attention", "layer_scale1"), ("mlp", "layer_scale2")):
        params[f"encoder/stack/layers/{ours}_layer_scale/scale"] = read(f"{theirs}.lambda1")
    positions = tensors["embeddings.position_embeddings"][0]
    lead = {"class_tokens": tensors["embeddings.cls_token"][0], "class_positions": positions[:1]}
    registers = tensors.get("embeddings.register_tokens")
    if is_tips:  # its second class token is stored as a register; neither has a position of its own
        lead = {"class_tokens": np.concatenate([lead["class_tokens"] + positions[:1], registers[0]])}
    elif registers is not None:
        lead["registers"] = registers[0]
    own = {
        "patches/kernel": tensors["embeddings.patch_embeddings.projection.weight"].transpose(2, 3, 1, 0),
        "patches/bias": tensors["embeddings.patch_embeddings.projection.bias"],
        "positions": positions[1:].reshape(GRID, GRID, WIDTH),
        "mask_token": tensors["embeddings.mask_token"][0],
        "final_norm/scale": tensors["layernorm.weight"],
        "final_norm/bias": tensors["layernorm.bias"],
        **lead,
    }
    return unflatten(params | {f"encoder/{path}": x for path, x in own.items()})


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("name", MODELS)
def test_class_tokens_and_patches_are_those_of_transformers(name, activation):
    """On grids of 7 to 37 patches a side, one of them no square; and with masked patches. With silu the MLP is gated."""
    cls, config, fields = MODELS[name]
    gated = activation == "silu"
    foreign = drawn(cls(config(**VISION, use_swiglu_ffn=gated, hidden_act=ACTIVATIONS[activation])))
    params = vision_params(foreign, gated, name == "tipsv2")
    hidden = params["encoder"]["stack"]["layers"]["mlp"]["up"]["kernel"].shape[-1]
    sizes = (PATCH, WIDTH, LAYERS, HEADS, hidden, gated, activation)
    fields = {"num_class_tokens": 1, "class_position": True, **fields}
    vit = VisionTransformer(*sizes, **fields, position_grid=GRID, mask_token=True, layer_scale=1.0)
    model = api.build(ImageEmbedder(vit, image_size=PATCH * GRID))
    run = jax.jit(model.apply, static_argnames="method")
    random = np.random.default_rng(1)
    for grid in ((16, 16), (8, 8), (32, 32), (37, 37), (7, 7), (5, 9)):
        pixels = random.uniform(size=(2, PATCH * grid[0], PATCH * grid[1], 3)).astype(np.float32)
        with torch.no_grad():
            expected = foreign(torch.tensor(pixels).permute(0, 3, 1, 2)).last_hidden_state.numpy()
        class_tokens, patches = run(params, {"pixels": pixels}, method="image_tokens")
        assert patches.shape[1] == grid[0] * grid[1] and 0.9 < expected.std() < 1.1
        np.testing.assert_allclose(class_tokens, expected[:, : class_tokens.shape[1]], rtol=0, atol=1e-5)
        np.testing.assert_allclose(patches, expected[:, -patches.shape[1] :], rtol=0, atol=1e-5)
    pixels = random.uniform(size=(2, PATCH * GRID, PATCH * GRID, 3)).astype(np.float32)
    mask = random.uniform(size=(2, GRID * GRID)) < 0.75
    embedded = foreign.embeddings(torch.tensor(pixels).permute(0, 3, 1, 2), bool_masked_pos=torch.tensor(mask))
    with torch.no_grad():
        for layer in foreign.encoder.layer:
            embedded = layer(embedded)
        expected = foreign.layernorm(embedded).numpy()[:, -GRID * GRID :]
    _, patches = run(params, {"pixels": pixels, "patch_mask": mask}, method="masked_image_tokens")
    np.testing.assert_allclose(patches, expected, rtol=0, atol=1e-5)


def test_texts_are_those_of_transformers():
    config = configuration_tipsv2.Tipsv2TextConfig(**SIZES, vocab_size=90, intermediate_size=96)
    foreign = drawn(modeling_tipsv2.Tipsv2TextModel(config))
    tensors = {name: x.numpy() for name, x in foreign.state_dict().items()}
    read = lambda name: np.stack([tensors[f"encoder.layers.{i}.{name}"] for i in range(LAYERS)])  # noqa: E731
    names = {"attention_norm": "layer_norm1", "mlp_norm": "layer_norm2", **attention("self_attn", "out_proj")}
    params = blocks_of(read, names | {"mlp/up": "mlp.fc1", "mlp/down": "mlp.fc2"}) | {
        "encoder/embedding/table": tensors["embeddings.token_embedding.weight"],
        "encoder/final_norm/scale": tensors["final_layer_norm.weight"],
        "encoder/final_norm/bias": tensors["final_layer_norm.bias"],
    }
    model = api.build(Embedder(TipsText(90, WIDTH, LAYERS, HEADS, 96, norm_eps=1e-5), MeanPooling()))
    mask = np.arange(20) < np.array([20, 7, 1, 13])[:, None]
    tokens = np.where(mask, np.random.default_rng(0).integers(1, 90, mask.shape), 0).astype(np.int32)
    with torch.no_grad():
        expected = foreign(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()).pooler_output.numpy()
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    found = jax.jit(model.apply)(unflatten(params), {"tokens": tokens, "segment_ids": mask})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
