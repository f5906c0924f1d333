"""Tiny random checkpoints of every family, made by transformers itself."""

import json

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


def make(name: str, folder, seed: int = 0):
    """Writes a random checkpoint of the family into `folder` and returns the torch model (token ids -> vectors)."""
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
                p.copy_(torch.randn_like(p) * (0.5 if "embed" in path else p.shape[-1] ** -0.5))
    model = model.eval().float()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 64})
    )
    return model
