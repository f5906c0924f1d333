"""EmbeddingGemma 2 with texts and images against transformers: read, trained and written, with equal vectors."""

import json
import math

import jax
import numpy as np
import pytest
import torch
import transformers
from parity_foreign import EMBEDDING_GEMMA2, TEXTS, embed, make, need, open_reported, theirs, tokenizer_json
from PIL import Image

from embed.inference import model as inference
from embed.interop import readers
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.embedding_gemma2 import EmbeddingGemma2
from embed.models.gemma_vision import GemmaVision
from embed.models.mixed_embedder import ImageTokens, MixedEmbedder
from embed.models.pooling import MeanPooling
from embed.types import Item

VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
    "patch_size": 4,
    "pooling_kernel_size": 3,
    "position_embedding_size": 32,
}
BEFORE, PLACEHOLDER, AFTER = 65, 67, 97  # '^', '`' and '~', around an image and for it; no other text has them
SIDE = 24  # pixels: 6 x 6 patches, 2 x 2 vectors
PIXELS = np.random.default_rng(5).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module", params=[False, True], ids=["", "standardised"])
def whole(request, tmp_path_factory):
    """A random model of texts and images, as a folder without modules of sentence-transformers, and its torch model."""
    need("embedding_gemma2")
    folder = tmp_path_factory.mktemp("whole")
    text = make("embedding_gemma2", folder / "text")
    config = transformers.EmbeddingGemma2Config(
        text_config=text.config.to_dict(),
        vision_config={**VISION, "standardize": request.param},
        boi_token_id=BEFORE,
        image_token_id=PLACEHOLDER,
        eoi_token_id=AFTER,
    )
    torch.manual_seed(1)
    model = transformers.EmbeddingGemma2Model._from_config(config, attn_implementation="eager").eval()
    model.language_model.load_state_dict(text.state_dict())
    # Random values, as initial norms and positions of ones would hide an error. Of 0.3, two float32 programs of the same model
    # differ by 1.2e-5 on some processors.
    with torch.no_grad():
        for name, x in model.vision_tower.state_dict().items():
            if x.dtype.is_floating_point:
                x.copy_(torch.randn_like(x) * 0.2 + (1.0 if name.endswith(("norm.weight", "std_scale")) else 0.0))
    model.save_pretrained(folder / "whole")
    (folder / "whole" / "tokenizer.json").write_text(tokenizer_json())
    options = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 64}
    (folder / "whole" / "tokenizer_config.json").write_text(json.dumps(options))
    (folder / "whole" / "processor_config.json").write_text(json.dumps({"image_processor": {"max_soft_tokens": 5}}))
    return folder / "whole", model


def pooled(model, tokens, mask, **images) -> np.ndarray:
    """Returns transformers' unit vectors: the mean over the real tokens."""
    with torch.no_grad():
        states = model(
            input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long(), **images
        ).last_hidden_state
    sums = (states.numpy() * mask[..., None]).sum(1)
    return sums / np.linalg.norm(sums, axis=-1, keepdims=True)


def patches_of(pixels: np.ndarray) -> dict[str, torch.Tensor]:
    """Returns images [n, Y, X, 3] as the image processor of transformers lays them out."""
    count, height, width, _ = pixels.shape
    size = VISION["patch_size"]
    rows, columns = height // size, width // size
    patches = (pixels / np.float32(255)).reshape(count, rows, size, columns, size, 3).transpose(0, 1, 3, 2, 4, 5)
    places = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)
    return {
        "pixel_values": torch.tensor(patches.reshape(count, rows * columns, -1)),
        "image_position_ids": torch.tensor(np.repeat(places[None], count, 0)),
    }


def expected_of(model, tokenizer, pieces: list[str], images: np.ndarray) -> np.ndarray:
    """Returns transformers' vector of a text between whose `pieces` the images stand."""
    ids = [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
    around = tokenizer("", add_special_tokens=True)["input_ids"]
    tokens = list(ids[0])
    for piece in ids[1:]:
        tokens += [BEFORE, *[PLACEHOLDER] * (SIDE // 12) ** 2, AFTER, *piece]
    tokens = np.array([[*around[: len(around) // 2], *tokens, *around[len(around) // 2 :]]])
    return pooled(model, tokens, np.ones(tokens.shape, bool), **patches_of(images))[0]


def test_texts_images_and_both(whole, tmp_path, capsys):
    """Rows longer than the window, padding and short texts; one image, two, and images alone."""
    folder, twin = whole
    assert embed("convert", folder, tmp_path / "bundle") == 0
    printed = capsys.readouterr().out
    assert "texts and images alone are embedded" in printed and f"resized to squares of {SIDE} x {SIDE}" in printed
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = inference.open_model(tmp_path / "bundle")

    given = tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="np")
    tokens, mask = given["input_ids"], given["attention_mask"] == 1
    assert mask.sum(1).max() == 64 and mask.sum(1).min() < EMBEDDING_GEMMA2["sliding_window"]
    expected = pooled(twin, tokens, mask)
    assert np.max(np.abs(model.encode(list(TEXTS), prompt="none") - expected)) <= 1e-5

    one, two, three = PIXELS
    items = [
        Item("what is [MASK_0] for", images=(one,)),
        Item("[MASK_1] beside [MASK_0]", images=(two, three)),
        one,
        Item(None, images=(two, one)),
        "what is this for",
    ]
    vectors = model.encode(items, prompt="none")
    parts = [
        (["what is", "for"], [one]),
        (["", "beside", ""], [three, two]),
        (["", ""], [one]),
        (["", "", ""], [two, one]),
    ]
    for number, (pieces, images) in enumerate(parts):
        wanted = expected_of(twin, tokenizer, pieces, np.stack(images))
        assert np.max(np.abs(vectors[number] - wanted)) <= 1e-5, number
    assert np.max(np.abs(model.encode([items[1]], prompt="none")[0] - vectors[1])) <= 1e-6


def test_an_export_has_the_same_weights(whole, tmp_path, capsys):
    folder, twin = whole
    assert embed("convert", folder, tmp_path / "bundle") == 0
    assert embed("export", tmp_path / "bundle", tmp_path / "export") == 0
    assert embed("verify", tmp_path / "export") == 0
    printed = capsys.readouterr().out
    assert "texts in transformers: token ids equal" in printed and "7 pictures in transformers" in printed
    again = transformers.EmbeddingGemma2Model.from_pretrained(tmp_path / "export", attn_implementation="eager").eval()
    for name, x in twin.state_dict().items():
        assert torch.equal(x, again.state_dict()[name]), name
    assert (again.config.boi_token_id, again.config.image_token_id, again.config.eoi_token_id) == (
        BEFORE,
        PLACEHOLDER,
        AFTER,
    )
    assert embed("convert", tmp_path / "export", tmp_path / "back") == 0
    first, second = (inference.open_model(tmp_path / name) for name in ("bundle", "back"))
    items = ["a text", PIXELS[0], Item("[MASK_0] once more", images=(PIXELS[1],))]
    reader, path = readers.open_embedding_gemma2(str(tmp_path / "export")), tmp_path / "picture.png"
    Image.fromarray(PIXELS[1]).save(path)
    assert np.max(np.abs(reader(path, " once more") - first.encode(items[2:], prompt="none")[0])) <= 1e-5
    np.testing.assert_array_equal(first.encode(items, prompt="none"), second.encode(items, prompt="none"))


def test_texts_alone(whole, tmp_path, capsys):
    folder, twin = whole
    assert embed("convert", folder, tmp_path / "bundle", "--texts_alone") == 0
    assert "the parts of vision_config are left out" in capsys.readouterr().out
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="np")
    expected = pooled(twin, given["input_ids"], given["attention_mask"] == 1)
    vectors = inference.open_model(tmp_path / "bundle").encode(list(TEXTS), prompt="none")
    assert vectors.shape == expected.shape == (len(TEXTS), 24)
    assert np.max(np.abs(vectors - expected)) <= 1e-5

    assert embed("export", tmp_path / "bundle", tmp_path / "export") == 0
    assert json.loads((tmp_path / "export" / "config.json").read_text())["model_type"] == "embedding_gemma2_text"
    export, reported = open_reported(tmp_path / "export")
    assert reported == [] and export.get_embedding_dimension() == 24
    assert np.max(np.abs(theirs(export, TEXTS) - expected)) <= 1e-5
    assert embed("verify", tmp_path / "export") == 0


def test_the_default_has_the_size_of_the_default_in_transformers():
    need("embedding_gemma2")
    with torch.device("meta"):
        model = transformers.EmbeddingGemma2TextModel(transformers.EmbeddingGemma2TextConfig())
    constants = sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith("layer_scalar"))
    assert sum(p.numel() for p in model.parameters()) + constants == 271_002_648
    with torch.device("meta"):
        config = transformers.EmbeddingGemma2Config(vision_config={"model_type": "gemma4_vision"})
        whole = transformers.EmbeddingGemma2Model(config)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in whole.named_children()}
    ours = api.build(MixedEmbedder(Embedder(EmbeddingGemma2(), MeanPooling()), ImageTokens(GemmaVision())))
    shapes = jax.eval_shape(ours.init, jax.random.key(0))
    counts = {name: sum(math.prod(x.shape) for x in jax.tree.leaves(part)) for name, part in shapes.items()}
    assert counts == {
        "text": parts["language_model"] + constants,
        "image": parts["vision_tower"],
        "image_input": parts["embed_vision"],
    }
