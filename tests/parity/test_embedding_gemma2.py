"""EmbeddingGemma 2 with all its parts against transformers: texts get its vectors, and an export of them is equal again."""

import json

import numpy as np
import pytest
import torch
import transformers
from parity_foreign import EMBEDDING_GEMMA2, TEXTS, embed, make, need, open_reported, theirs, tokenizer_json

from embed.inference import model as inference

# The parts for images, as small as they may be.
VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
}
PLACEHOLDER = 50  # the token that stands for an image


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A random model of texts and images, as a folder without modules of sentence-transformers, and its torch model."""
    need("embedding_gemma2")
    folder = tmp_path_factory.mktemp("whole")
    text = make("embedding_gemma2", folder / "text")
    config = transformers.EmbeddingGemma2Config(
        text_config=text.config.to_dict(), vision_config=VISION, image_token_id=PLACEHOLDER
    )
    torch.manual_seed(1)
    model = transformers.EmbeddingGemma2Model._from_config(config, attn_implementation="eager").eval()
    model.language_model.load_state_dict(text.state_dict())
    model.save_pretrained(folder / "whole")
    (folder / "whole" / "tokenizer.json").write_text(tokenizer_json())
    options = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 64}
    (folder / "whole" / "tokenizer_config.json").write_text(json.dumps(options))
    return folder / "whole", model


def pooled(model, tokens, mask) -> np.ndarray:
    """Returns transformers' unit vectors: the mean over the real tokens."""
    with torch.no_grad():
        states = model(
            input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long()
        ).last_hidden_state
    sums = (states.numpy() * mask[..., None]).sum(1)
    return sums / np.linalg.norm(sums, axis=-1, keepdims=True)


def test_texts_of_the_whole_model_and_of_its_export(whole, tmp_path, capsys):
    """Rows longer than the window, padding and short texts."""
    folder, twin = whole
    assert embed("convert", folder, tmp_path / "bundle") == 0
    assert "the parts of vision_config are left out" in capsys.readouterr().out
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="np")
    tokens, mask = given["input_ids"], given["attention_mask"] == 1
    assert mask.sum(1).max() == 64 and mask.sum(1).min() < EMBEDDING_GEMMA2["sliding_window"]
    assert PLACEHOLDER not in tokens
    expected = pooled(twin, tokens, mask)
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
