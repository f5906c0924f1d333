"""Tiny models as bundles: weights drawn by numpy, and vocabularies of made-up words."""

import functools
import json
import pathlib
import random

import jax
import numpy as np

from embed import bundles, checkpoints
from embed.models import api
from embed.models.dual_encoder import DualEncoder, ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.models.vit import VisionTransformer
from embed.text import PROMPTS

MAX_LENGTH = 48
_build, _built = api.build, {}


def build(module):
    """`api.build`, once for each description: tracing takes longer than anything that most tests do with a model."""
    key = json.dumps(api.describe(module))
    if key not in _built:
        _built[key] = _build(module)
    return _built[key]


def made_up_texts(count: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Returns texts of 1 to `longest` made-up words."""
    draw = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(400)]
    return [" ".join(draw.choices(words, k=draw.randint(1, longest))) for _ in range(count)]


def small_module(vocab_size: int = 400) -> Embedder:
    encoder = Gemma(
        vocab_size=vocab_size,
        width=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        mlp_dim=32,
        window=16,
        global_every=2,
    )
    return Embedder(encoder, MeanPooling(), projection=(24, 16), matryoshka_dims=(8, 4))


def small_dual_encoder(vocab_size: int = 400) -> DualEncoder:
    """Texts, and images of 8 x 8 pixels in four patches."""
    text = Embedder(TipsText(vocab_size=vocab_size, width=16, num_layers=1, num_heads=2, mlp_dim=24), MeanPooling())
    vit = VisionTransformer(4, 16, 1, 2, 24, position_grid=2)
    return DualEncoder(text, ImageEmbedder(vit, image_size=8), matryoshka_dims=(8,))


@functools.cache
def small_model(vocab_size: int = 400, module=small_module):
    """Returns the tiny model and the shapes of its parameters."""
    model = api.build(module(vocab_size))
    return model, jax.eval_shape(model.init, jax.random.key(0))


def write_model(
    path, tokenizer, seed: int = 0, overwrite: bool = False, vocab_size: int = 400, prompts=PROMPTS, module=small_module
):
    """Returns a new bundle of the tiny model with weights drawn from `seed`."""
    model, shapes = small_model(vocab_size, module)
    draw = np.random.default_rng(seed)
    params = jax.tree.map(lambda s: (draw.normal(size=s.shape) * 0.3).astype(np.float32), shapes)
    description = bundles.model_json(
        model.description,
        tokenizer_options=tokenizer.options(),
        tokenizer_digest=tokenizer.digest,
        prompts=dict(prompts),
        matryoshka_dims=model.matryoshka_dims,
        lengths={"query": 16, "target": MAX_LENGTH},
        lineage={"seed": seed},
    )
    contents = bundles.contents(description, tokenizer.filename, tokenizer.content())
    checkpoints.write_bundle(path, params, contents, overwrite=overwrite)
    return pathlib.Path(path)


def word_tokenizer(path, words):
    """Writes a tokenizer.json with one token for each of `words`, and returns it opened."""
    import tokenizers as hugging_face
    from tokenizers import models, pre_tokenizers, processors

    from embed.data.tokenizers import HuggingFace

    ids = {word: i for i, word in enumerate(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))}
    made = hugging_face.Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    made.save(str(path))
    return HuggingFace(str(path))
