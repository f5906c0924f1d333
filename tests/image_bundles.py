"""Bundles of tiny towers of images, alone or with TIPS' tower of texts, with drawn weights."""

import jax
import numpy as np
from image_towers import image_tower, text_tower

from embed import bundles, checkpoints
from embed.data import tokenizers
from embed.models import api
from embed.models.dual_encoder import DualEncoder

WORDS = ["A photo of a Cat", "two small dogs", "zwei kleine Hunde", "a", " a red  square, and some more of it! "]


def drawn(module):
    """Returns the model of a module and parameters none of which is at its start."""
    model, random = api.build(module), np.random.default_rng(0)
    params = model.init(jax.random.key(0))
    return model, jax.tree.map(lambda x: np.asarray(x + 0.05 * random.normal(size=x.shape).astype(np.float32)), params)


def of_images(folder, module):
    """Writes the bundle of an image tower and returns its folder."""
    model, params = drawn(module)
    content = bundles.image_model_json(
        model.description, matryoshka_dims=model.matryoshka_dims, lineage={"run": "test"}
    )
    return checkpoints.write_bundle(folder, params, bundles.contents(content))


def vocabulary(path):
    """Writes a small SentencePiece vocabulary and returns its path."""
    path.write_bytes(tokenizers.train_sentencepiece(WORDS * 20, 290))
    return path


def of_both(folder, words, image=(), text=(), class_token=0, prompts=(), **tokenizer_options):
    """Writes the bundle of a pair of towers and returns its folder; `words` is a path of `vocabulary`."""
    options = {"add_bos": False, "add_eos": False, "lower_case": True, **tokenizer_options}
    tokenizer = tokenizers.SentencePiece(str(words), **options)
    towers = text_tower(tokenizer.vocab_size, **dict(text)), image_tower(**dict(image)).clone(class_token=class_token)
    model, params = drawn(DualEncoder(*towers))
    content = bundles.model_json(
        model.description,
        tokenizer_options=tokenizer.options(),
        tokenizer_digest=tokenizer.digest,
        prompts={"query": "{content}", "document": "{content}", "none": "{content}", **dict(prompts)},
        matryoshka_dims=model.matryoshka_dims,
        lengths={"query": 12, "target": 12},
        lineage={"run": "test"},
        text_normalization="none",
    )
    return checkpoints.write_bundle(folder, params, bundles.contents(content, tokenizer.filename, tokenizer.content()))
