"""Tiny random checkpoints of every family, made by transformers itself, and whole embedding models of them."""

import dataclasses
import itertools
import json
import logging
import pathlib
import warnings

import numpy as np
import pytest
import safetensors.torch
import sentence_transformers
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors

VOCAB = 120


def tokenizer_json(pad: str = "[PAD]") -> str:
    """Returns a tokenizer.json of single characters, which adds [CLS] and [SEP]."""
    words = [pad, "[UNK]", "[CLS]", "[SEP]", *map(chr, range(33, 127))]
    made = tokenizers.Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split("", behavior="isolated")]
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made.to_str()


CONFIGS = {
    "bert": lambda: transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    ),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=0,
        layer_norm_eps=1e-5,
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(**GEMMA, use_bidirectional_attention=True),
    "gemma3-causal": lambda: transformers.Gemma3TextConfig(**GEMMA),
    "embedding_gemma2": lambda: transformers.EmbeddingGemma2TextConfig(**EMBEDDING_GEMMA2),
    "t5gemma": lambda: transformers.T5GemmaConfig(
        encoder=T5GEMMA, decoder=T5GEMMA, is_encoder_decoder=False, vocab_size=VOCAB
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=40,
        local_attention=8,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
    ),
    "qwen3": lambda: transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        intermediate_size=40,
    ),
}
GEMMA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 40,
    "query_pre_attn_scalar": 20,
    "sliding_window": 8,
}
# Two periods of three layers, and a last one that is global too.
EMBEDDING_GEMMA2 = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 7,
    "sliding_window_pattern": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_global_key_value_heads": 1,
    "global_head_dim": 12,
    "intermediate_size": 40,
    "sliding_window": 4,
    "hidden_size_per_layer_input": 20,
    "embedding_dim": 24,
}
T5GEMMA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 40,
    "query_pre_attn_scalar": 20,
    "sliding_window": 4,
    "attn_logit_softcapping": 5.0,
}


def missing(family: str) -> bool:
    """Returns whether the installed transformers is older than the family."""
    return family == "embedding_gemma2" and not hasattr(transformers, "EmbeddingGemma2TextConfig")


def need(family: str) -> None:
    """Skips the test where the installed transformers is older than the family."""
    if missing(family):
        pytest.skip(
            f"transformers {transformers.__version__} has no EmbeddingGemma 2 (model type embedding_gemma2_text)"
        )


def make(name: str, folder, seed: int = 0):
    """Writes a random checkpoint of the family into `folder` and returns the torch model (token ids -> vectors)."""
    need(name)
    torch.manual_seed(seed)
    config = CONFIGS[name]()
    if name == "t5gemma":
        # Only the eager attention caps the logits; the others leave the cap out without a word.
        model = transformers.T5GemmaEncoderModel._from_config(config, attn_implementation="eager")
    else:
        model = transformers.AutoModel.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for path, p in model.named_parameters():
            # Every parameter far from its default, and signals of ordinary size.
            if "norm" in path.lower() or path.endswith("bias"):
                p.add_(0.3 * torch.randn_like(p))
            else:
                is_table = "embed" in path and "projection" not in path
                p.copy_(torch.randn_like(p) * (0.5 if is_table else p.shape[-1] ** -0.5))
        for path, buffer in model.named_buffers():
            if path.endswith("layer_scalar"):
                buffer.uniform_(0.8, 1.2)
    model = model.eval().float()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 64})
    )
    return model


# EmbeddingGemma's prompts under the keys its own folder has.
PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "BitextMining": "task: search result | query: ",
    "Clustering": "task: clustering | query: ",
    "Classification": "task: classification | query: ",
    "MultilabelClassification": "task: classification | query: ",
    "InstructionRetrieval": "task: code retrieval | query: ",
    "PairClassification": "task: sentence similarity | query: ",
    "Reranking": "task: search result | query: ",
    "Retrieval": "task: search result | query: ",
    "Retrieval-query": "task: search result | query: ",
    "Retrieval-document": "title: none | text: ",
    "STS": "task: sentence similarity | query: ",
    "Summarization": "task: summarization | query: ",
    "odd name": "odd! ",
}
# One batch of very different lengths, some beyond every window, two cut at 64 tokens.
TEXTS = (
    "a",
    "a cat",
    "how long is a sliding window?",
    "every seventh layer looks at the whole text; all others at eight characters",
    "0123456789abcdefghijklmnopqrstuvwxyz" * 4,
    "Unknown letters: \u00e4\u00f6\u00fc \u6771\u4eac",
)
POOLING = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


@dataclasses.dataclass(frozen=True)
class Shape:
    """A whole tiny embedding model: `dense` are the sizes behind the pooling."""

    family: str
    pooling: str = "mean"
    dense: tuple[int, ...] = ()
    prompts: dict[str, str] = dataclasses.field(default_factory=lambda: {"query": "query: ", "document": "passage: "})


SHAPES = {name: Shape(name) for name in CONFIGS} | {
    "bert": Shape("bert", pooling="cls"),
    "qwen3": Shape("qwen3", pooling="lasttoken", prompts={"query": "Instruct: find it\nQuery:"}),
    "embeddinggemma": Shape("gemma3", dense=(96, 24), prompts=PROMPTS),
    "embedding_gemma2": Shape("embedding_gemma2", prompts=PROMPTS),
    "embedding_gemma2-dense": Shape("embedding_gemma2", dense=(18,)),
    "modernbert-plain": Shape("modernbert", prompts={}),
}


def make_legacy(shape: Shape, folder, seed: int = 0) -> pathlib.Path:
    """Writes a sentence-transformers folder of the dialect of versions 2 to 5, by hand, and returns it."""
    config = make(shape.family, folder, seed).config
    width = getattr(config, "embedding_dim", None) or getattr(config, "encoder", config).hidden_size
    write = lambda path, value: (folder / path).write_text(json.dumps(value))  # noqa: E731
    kinds = ["Transformer", "Pooling", *["Dense"] * len(shape.dense), "Normalize"]
    places = ["" if i == 0 else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    for place in places[1:]:
        (folder / place).mkdir()
    modes = {f"pooling_mode_{mode}": mode == POOLING[shape.pooling] for mode in _MODES}
    write("1_Pooling/config.json", {"word_embedding_dimension": width, **modes, "include_prompt": True})
    entries = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, place) in enumerate(zip(kinds, places))
    ]
    write("modules.json", entries)
    options = {"model_args": {"attn_implementation": "eager"}} if shape.family == "t5gemma" else {}
    write("sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False, **options})
    write("config_sentence_transformers.json", {"prompts": shape.prompts, "default_prompt_name": None})
    sizes = (width, *shape.dense)
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed + i)) * inputs**-0.5
        safetensors.torch.save_file({"linear.weight": weight}, folder / places[2 + i] / "model.safetensors")
        dense = {"in_features": inputs, "out_features": outputs, "bias": False}
        identity = "torch.nn.modules.linear.Identity"
        write(f"{places[2 + i]}/config.json", {**dense, "activation_function": identity})
    return folder


def open_reported(folder, **options):
    """Returns (the SentenceTransformer of a folder, everything that was logged or warned of while it was loaded)."""
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    roots = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    before = [root.level for root in roots]
    transformers.utils.logging.warning_once.cache_clear()  # what was said of another folder is said again
    for root in roots:
        root.setLevel(logging.WARNING)
        root.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", **options)
    finally:
        for root, level in zip(roots, before):
            root.removeHandler(handler)
            root.setLevel(level)
    return model, said + [str(w.message) for w in caught]


def theirs(model, texts, **options) -> np.ndarray:
    """Returns sentence-transformers' float32 vectors, all texts in one batch."""
    return np.asarray(model.encode(list(texts), batch_size=len(texts), show_progress_bar=False, **options), np.float32)


def embed(*arguments) -> int:
    """Runs the command line in this process and returns its exit code."""
    from embed.commands import main

    try:
        main.main([str(a) for a in arguments])
    except SystemExit as e:
        return e.code
    raise AssertionError("the command line always exits")


@dataclasses.dataclass(frozen=True)
class Made:
    """One tiny model in all its forms. Tests copy a folder before they alter it."""

    shape: Shape
    foreign: pathlib.Path
    bundle: pathlib.Path
    export: pathlib.Path


def convert_and_export(shape: Shape, folder: pathlib.Path) -> Made:
    """Writes the random foreign folder, its bundle and the sentence-transformers export of that below `folder`."""
    made = Made(shape, make_legacy(shape, folder / "foreign"), folder / "bundle", folder / "export")
    assert embed("convert", made.foreign, made.bundle) == 0
    assert embed("export", made.bundle, made.export) == 0
    return made
