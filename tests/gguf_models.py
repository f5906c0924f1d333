"""Tiny random models of every family that llama.cpp has, and vocabularies of every kind that it reads."""

import base64
import functools
import io
import json
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import sentencepiece
import tiny_models
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as pb2
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from embed import bundles, checkpoints, trees
from embed.data.tokenizers import HuggingFace, SentencePiece, Tokenizer, train_sentencepiece
from embed.gguf.tokenizer_json import QWEN_WORDS
from embed.interop import parity, tokenizer_json
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.modernbert import ModernBert
from embed.models.pooling import FirstPooling, LastPooling, MeanPooling
from embed.models.qwen3 import Qwen3

VOCAB, LENGTH = 512, 200
PROMPTS = {"query": "find: {content}", "document": "{content}", "none": "{content}"}


@functools.cache
def corpus() -> tuple[str, ...]:
    """Texts that every vocabulary is trained on: those of parity.json, in many scripts, and made-up words."""
    return (*parity.TEXTS, *tiny_models.made_up_texts(300))


def _train(
    spec: tokenizers.Tokenizer, trainer, special: tuple[str, str], path: pathlib.Path, template: str
) -> HuggingFace:
    spec.train_from_iterator(corpus(), trainer)
    ends = [(name, spec.token_to_id(name)) for name in special]
    spec.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    spec.save(str(path))
    return HuggingFace(str(path), special[0] if "[PAD]" not in spec.get_vocab() else "[PAD]")


def word_pieces(path: pathlib.Path, lowercase: bool = True) -> HuggingFace:
    """A WordPiece vocabulary as BERT's."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCAB - 7, special_tokens=special)
    return _train(made, trainer, ("[CLS]", "[SEP]"), path, "[CLS] $A [SEP]")


def _bytes(path: pathlib.Path, words, special, template: str) -> HuggingFace:
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = words
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special, initial_alphabet=alphabet)
    ends = tuple(name for name in special if name in template)
    return _train(made, trainer, ends, path, template)


def gpt2_bytes(path: pathlib.Path) -> HuggingFace:
    """A BPE of bytes as ModernBERT's."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _bytes(path, words, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "[CLS] $A [SEP]")


def qwen_bytes(path: pathlib.Path) -> HuggingFace:
    """A BPE of bytes as Qwen3's, which ends a text and does not begin it."""
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN_WORDS), "isolated")
    words = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return _bytes(path, words, ["<|endoftext|>"], "$A <|endoftext|>")


def _sentencepiece(**options) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, vocab_size=VOCAB - 4, minloglevel=2, num_threads=1,
        hard_vocab_limit=False, **options,
    )  # fmt: skip
    return model.getvalue()


@functools.cache
def merging_model() -> bytes:
    """A SentencePiece BPE model as Gemma's: nothing is changed before merging, unknown characters are bytes."""
    return _sentencepiece(
        model_type="bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=False, character_coverage=0.99, user_defined_symbols=["<tag>"],
    )  # fmt: skip


def merging(path: pathlib.Path) -> SentencePiece:
    """Gemma's kind of tokenizer.model."""
    path.write_bytes(merging_model())
    return SentencePiece(str(path))


def merging_json(path: pathlib.Path) -> HuggingFace:
    """Gemma's kind of tokenizer.json."""
    model = path.with_suffix(".model")
    model.write_bytes(merging_model())
    spec = json.loads(tokenizer_json.from_sentencepiece(SentencePiece(str(model))))
    spec["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    spec["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False
    }  # fmt: skip
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    names = {"<pad>": True, "<s>": True, "</s>": True, "<unk>": True, "<tag>": False}
    ids = spec["model"]["vocab"]
    spec["added_tokens"] = [
        {"id": ids[name], "content": name, "special": special, **flags} for name, special in names.items()
    ]
    path.write_text(json.dumps(spec))
    return HuggingFace(str(path))


def unigram(path: pathlib.Path) -> SentencePiece:
    """The tokenizer.model that `embed prepare` trains."""
    path.write_bytes(train_sentencepiece(corpus(), VOCAB, symbols=["<tag>"]))
    return SentencePiece(str(path))


def unigram_json(path: pathlib.Path) -> HuggingFace:
    """XLM-RoBERTa's kind of tokenizer.json: texts go through a map of characters, and unknown ones are one token."""
    proto = pb2.ModelProto.FromString(_sentencepiece(model_type="unigram", unk_id=0, character_coverage=0.99))
    pieces = [(p.piece, p.score) for p in proto.pieces if p.type == 1]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made = tokenizers.Tokenizer(models.Unigram([*((name, 0.0) for name in special), *pieces], unk_id=3))
    made.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made.add_special_tokens(special)
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made.save(str(path))
    assert base64.b64decode(json.loads(path.read_text())["normalizer"]["precompiled_charsmap"])
    return HuggingFace(str(path))


VOCABULARIES: dict[str, Callable[[pathlib.Path], Tokenizer]] = {
    "word pieces": word_pieces,
    "gpt2 bytes": gpt2_bytes,
    "qwen bytes": qwen_bytes,
    "merging": merging,
    "merging json": merging_json,
    "unigram": unigram,
    "unigram json": unigram_json,
}
_BERT = {"vocab_size": VOCAB, "width": 64, "num_layers": 2, "num_heads": 4, "mlp_dim": 96}
_DECODER = {**_BERT, "num_kv_heads": 2, "head_dim": 32}
_GEMMA = Gemma(**{**_DECODER, "num_layers": 3}, window=9, global_every=2, global_rope_scale=8.0)
# Of every family a model with a vocabulary of its kind; "poor" ones have rows that no block of 32 fits.
MODELS: dict[str, tuple[Embedder, str]] = {
    "bert": (Embedder(Bert(**_BERT, max_positions=LENGTH), FirstPooling()), "word pieces"),
    "xlm-roberta": (
        Embedder(Bert(**_BERT, max_positions=LENGTH + 2, position_offset=2, num_token_types=1), MeanPooling()),
        "unigram json",
    ),
    "gemma": (Embedder(_GEMMA, MeanPooling(), (96, 64), (32,)), "merging"),
    "gemma with one map": (Embedder(_GEMMA, LastPooling(), (64,)), "unigram"),
    "modernbert": (
        Embedder(ModernBert(**{**_BERT, "num_layers": 4}, window=8, global_every=3), MeanPooling()),
        "gpt2 bytes",
    ),
    "qwen3": (Embedder(Qwen3(**_DECODER), LastPooling()), "qwen bytes"),
    "qwen3 open to both sides": (Embedder(Qwen3(**_DECODER, causal=False), MeanPooling()), "merging json"),
    "poor bert": (Embedder(Bert(**{**_BERT, "width": 48}, max_positions=LENGTH), MeanPooling()), "word pieces"),
}


def parameters(module: Embedder, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random parameters by path: norms and biases too are not what they start from."""
    shapes = trees.flatten(jax.eval_shape(tiny_models.build(module).init, jax.random.key(0)))
    draw = np.random.default_rng(seed)
    first = 0.0 if isinstance(module.encoder, Gemma) else 1.0

    def one(path: str, shape: tuple[int, ...]) -> np.ndarray:
        values = draw.normal(size=shape)
        if path.endswith("scale"):
            return first + 0.2 * values if "head" not in path else values
        return values * (0.1 if path.endswith("bias") else 0.5 if path.endswith("table") else 0.12)

    return {path: one(path, s.shape).astype(np.float32) for path, s in shapes.items()}


def write(folder: pathlib.Path, name: str, normalization: str = "none", params=None, prompts=PROMPTS) -> pathlib.Path:
    """Writes the bundle of one of MODELS, and returns its folder."""
    module, kind = MODELS[name]
    source = folder / f"{name} vocabulary"
    source.mkdir(parents=True)
    tokenizer = VOCABULARIES[kind](source / "tokenizer.file")
    model = tiny_models.build(module)
    description = bundles.model_json(
        model.description,
        tokenizer_options=tokenizer.options(),
        tokenizer_digest=tokenizer.digest,
        prompts=dict(prompts),
        matryoshka_dims=model.matryoshka_dims,
        lengths={"query": 32, "target": LENGTH},
        lineage={"seed": 0},
        text_normalization=normalization,
    )
    contents = bundles.contents(description, tokenizer.filename, tokenizer.content())
    checkpoints.write_bundle(folder / name, trees.unflatten(params or parameters(module)), contents)
    return folder / name
