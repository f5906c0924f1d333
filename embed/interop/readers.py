"""How other tools read an export. The model card shows the source of these functions, and `embed verify` runs them.

They use nothing of this package, so that what is proved is what a user of the exported folder gets. Imports stand inside,
where a reader of the card needs them.
"""

import inspect
import pathlib
import textwrap
from collections.abc import Callable


def prompted(prompt, text):
    """Returns a text as the model was trained to read it; a prompt is a prefix, or a template with {content}."""
    import unicodedata

    text = unicodedata.normalize("NFC", text).strip()
    template = prompt if "{content}" in prompt else prompt + "{content}"
    return template.replace("{title}", "none").replace("{content}", text).strip()


def prompted_as_it_is(prompt, text):
    """Returns a text as the model reads it; a prompt is a prefix, or a template with {content}."""
    template = prompt if "{content}" in prompt else prompt + "{content}"
    return template.replace("{title}", "none").replace("{content}", text)


def open_sentence_transformers(folder):
    """Returns embed(texts, prompt_name) of the folder."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder)
    return lambda texts, prompt_name=None: model.encode(texts, prompt_name=prompt_name, show_progress_bar=False)


def open_embedding_gemma2(folder):
    """Returns embed(*parts) of the folder: `parts` are texts and paths of images in reading order; a prompt is the first text."""
    import json

    import numpy as np
    import torch
    from PIL import Image
    from tokenizers import Tokenizer
    from transformers import EmbeddingGemma2Model

    model = EmbeddingGemma2Model.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    with open(f"{folder}/processor_config.json", encoding="utf-8") as f:
        size = json.load(f)["image_processor"]["size"]["height"]
    patch, pooling = model.config.vision_config.patch_size, model.config.vision_config.pooling_kernel_size
    side = size // patch
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    positions = torch.tensor(np.stack([columns, rows], -1).reshape(1, side * side, 2))
    names = [tokenizer.id_to_token(getattr(model.config, f"{name}_token_id")) for name in ("boi", "image", "eoi")]
    image_text = names[0] + names[1] * (side // pooling) ** 2 + names[2]

    def patches(path):
        image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        pixels = (np.float32(image) / 255).reshape(side, patch, side, patch, 3).transpose(0, 2, 1, 3, 4)
        return torch.tensor(pixels.reshape(1, side * side, -1))

    def embed(*parts):
        text = "".join(part if isinstance(part, str) else image_text for part in parts)
        images = [patches(part) for part in parts if not isinstance(part, str)]
        more = {}
        if images:
            more = {"pixel_values": torch.cat(images), "image_position_ids": positions.repeat(len(images), 1, 1)}
        with torch.no_grad():
            states = model(torch.tensor([tokenizer.encode(text).ids]), **more).last_hidden_state[0]
        vector = states.mean(0).numpy()
        return vector / np.linalg.norm(vector)

    return embed


def open_onnx(folder, prompted):
    """Returns embed(text, prompt) of the folder. Pooling, linear maps and the scaling to unit length are in the graph."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx", providers=["CPUExecutionProvider"])

    def embed(text, prompt=""):
        ids = np.array([tokenizer.encode(prompted(prompt, text)).ids])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return session.run(["sentence_embedding"], inputs)[0][0]

    return embed


def open_onnx_images(folder):
    """Returns embed(path) of the folder for image files. Colours, linear maps and the scaling to unit length are in the graph."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    session = onnxruntime.InferenceSession(f"{folder}/image/onnx/model.onnx", providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[-1]

    def embed(path):
        image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.float32(image).transpose(2, 0, 1)[None] / 255
        return session.run(["sentence_embedding"], {"pixels": pixels})[0][0]

    return embed


def open_stablehlo_images(folder):
    """Returns embed(path) of the folder for image files. patches.stablehlo gives the vectors of patches, by the same arguments."""
    import jax
    import numpy as np
    from PIL import Image

    with open(f"{folder}/image/model.stablehlo", "rb") as f:
        exported = jax.export.deserialize(bytearray(f.read()))
    with open(f"{folder}/image/parameters.npz", "rb") as f, np.load(f) as stored:
        parameters = dict(stored)
    program, size = jax.jit(exported.call), exported.in_avals[-1].shape[-2]

    def embed(path):
        image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(program(parameters, np.asarray(image)[None]))[0]

    return embed


def open_stablehlo(folder, prompted):
    """Returns embed(text, prompt) of the folder; texts are filled up to few lengths, so that few programs are compiled."""
    import jax
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    with open(f"{folder}/model.stablehlo", "rb") as f:
        program = jax.jit(jax.export.deserialize(bytearray(f.read())).call)
    with open(f"{folder}/parameters.npz", "rb") as f, np.load(f) as stored:
        parameters = dict(stored)
    max_length = tokenizer.truncation["max_length"]

    def embed(text, prompt=""):
        ids = tokenizer.encode(prompted(prompt, text)).ids
        tokens = np.zeros((1, min(-(-len(ids) // 32) * 32, max_length)), np.int32)
        tokens[0, : len(ids)] = ids
        return np.asarray(program(parameters, tokens, np.arange(tokens.shape[1])[None] < len(ids)))[0]

    return embed


def open_stablehlo_sentencepiece(folder, prompted):
    """Returns embed(text, prompt) of a folder whose vocabulary only SentencePiece reads."""
    import json

    import jax
    import numpy as np
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")
    with open(f"{folder}/model.json", encoding="utf-8") as f:
        description = json.load(f)
    max_length = max(description["lengths"].values())
    head = [processor.bos_id()] * description["tokenizer"]["add_bos"]
    tail = [processor.eos_id()] * description["tokenizer"]["add_eos"]
    cuts_left = description["tokenizer"].get("truncation_side") == "left"
    lower_case = description["tokenizer"].get("lower_case", False)
    with open(f"{folder}/model.stablehlo", "rb") as f:
        program = jax.jit(jax.export.deserialize(bytearray(f.read())).call)
    with open(f"{folder}/parameters.npz", "rb") as f, np.load(f) as stored:
        parameters = dict(stored)

    def embed(text, prompt=""):
        joined = prompted(prompt, text)
        pieces = processor.encode(joined.lower() if lower_case else joined)
        room = max_length - len(head) - len(tail)
        ids = head + (pieces[-room:] if cuts_left else pieces[:room]) + tail
        tokens = np.zeros((1, min(-(-len(ids) // 32) * 32, max_length)), np.int32)
        tokens[0, : len(ids)] = ids
        return np.asarray(program(parameters, tokens, np.arange(tokens.shape[1])[None] < len(ids)))[0]

    return embed


def open_gguf(folder, prompted):
    """Returns embed(text, prompt) of the folder, by llama.cpp. A text may have as many tokens as the model was trained for."""
    import json

    import numpy as np
    from llama_cpp import Llama

    with open(f"{folder}/model.json", encoding="utf-8") as f:
        length = max(json.load(f)["lengths"].values())
    sizes = {"n_ctx": length, "n_batch": length, "n_ubatch": length}
    model = Llama(f"{folder}/model.gguf", embedding=True, verbose=False, **sizes)

    def embed(text, prompt=""):
        return np.float32(model.embed(prompted(prompt, text), normalize=True, truncate=False))

    return embed


# The normalisation that model.json names -> the function that does it
PROMPTED = {"NFC, strip": prompted, "none": prompted_as_it_is}


def stablehlo_of(folder: pathlib.Path) -> Callable:
    """Returns the function that opens a StableHLO export, by the tokenizer that it has."""
    has_json = (pathlib.Path(folder) / "tokenizer.json").is_file()
    return open_stablehlo if has_json else open_stablehlo_sentencepiece


def source(*functions: Callable) -> str:
    """Returns the source of functions, for a model card."""
    return "\n\n".join(textwrap.dedent(inspect.getsource(function)).rstrip() for function in functions) + "\n"
