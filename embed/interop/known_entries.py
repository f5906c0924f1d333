"""The entries of tokenizer and sentence-transformers files that are known, as data. The families have those of config.json.

Source: transformers 4.57 and 5.23, sentence-transformers 2 to 6.
"""

from embed.interop.entries import HONOURED, only, table

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# special_tokens_map.json has the same roles. Other entries that end in _token name further special tokens.
SPECIAL_TOKENS_MAP = table(honoured=(*SPECIAL_TOKENS, "additional_special_tokens", "extra_special_tokens"))

TOKENIZER_CONFIG = SPECIAL_TOKENS_MAP | table(
    honoured=(
        "tokenizer_class",
        "added_tokens_decoder",
        "model_specific_special_tokens",
        "model_max_length",
        "max_len",
        "truncation_side",
        "padding_side",
        "model_input_names",
        "do_lower_case",  # of BertTokenizer and Tipsv2Tokenizer; the other classes do not read it
        "strip_accents",
        "tokenize_chinese_chars",
        "add_prefix_space",
        "add_bos_token",  # transformers 5 takes the post-processor of tokenizer.json instead
        "add_eos_token",
        "chat_template",  # a note where sentence-transformers would apply it
    ),
    no_effect=(
        # of decoding, generation and chats
        "clean_up_tokenization_spaces",
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
        "spaces_between_special_tokens",
        "errors",
        "use_default_system_prompt",
        "response_template",
        "response_schema",
        "chat_control_tokens",
        # of pairs, padding and defaults that the caller replaces
        "pad_to_multiple_of",
        "pad_token_type_id",
        "padding",
        "truncation",
        "truncation_strategy",
        "max_length",
        "stride",
        # of tokenizers in Python, which transformers does not use where there is a tokenizer.json
        "do_basic_tokenize",
        "never_split",
        "basic_tokenizer",
        "wordpieces_prefix",
        "clean_text",
        "legacy",
        "legacy_behaviour",
        "from_slow",
        "use_fast",
        "sp_model_kwargs",
        "vocab_file",
        "merges_file",
        "tokenizer_file",
        "vocab_size",
        # of where the file comes from
        "name_or_path",
        "special_tokens_map_file",
        "full_tokenizer_file",
        "processor_class",
        "backend",
        "is_local",
        "local_files_only",
        "files_loaded",
        "init_inputs",
        # of token types, which TIPSv2's tower does not have
        "token_type_ids_pattern",
        "verbose",
        "device_map",
        "trust_remote_code",
        "transformers_version",
        "__version__",
        "_commit_hash",
    ),
    refused={
        "tokenizer_type": only(None, advice="set tokenizer_class instead"),
        "gguf_file": only(None, advice="keep the tokenizer.json that is meant and remove the entry"),
        "subfolder": only(None, "", advice="put the tokenizer's files into the folder and remove the entry"),
        "split_special_tokens": only(False, None, advice="a tokenizer.json cannot say it; remove the entry"),
        "fix_mistral_regex": only(False, None, advice="remove the entry"),
        "auto_map": only(None, advice="code of its own is never executed; save it with a class of transformers"),
        "fast_tokenizer_files": only(
            None, [], ["tokenizer.json"], advice="keep one tokenizer.json and remove the entry"
        ),
    },
)

SENTENCE_BERT_CONFIG = table(
    honoured=(
        "max_seq_length",
        "do_lower_case",
        "model_args",
        "model_kwargs",
        "tokenizer_args",
        "processor_kwargs",
        "config_args",
        "config_kwargs",
    ),
    no_effect=("unpad_inputs", "backend"),
    refused={
        "transformer_task": only("feature-extraction"),
        "module_output_name": only("token_embeddings"),
        "modality_config": only(
            {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            {"text": {"method": "forward", "method_output_name": ["last_hidden_state"]}},
            advice="only plain texts into token vectors can be computed",
        ),
        "processing_kwargs": only(None, {}, advice="remove the entry"),
        "query_length": only(None, advice="set max_seq_length instead"),
        "document_length": only(None, advice="set max_seq_length instead"),
        "query_expansion": only(None),
        "tokenizer_name_or_path": only(None, advice="put the tokenizer's files into the folder and remove the entry"),
    },
)
# What `model_args` may hold: how the weights are loaded, never what they compute.
MODEL_ARGUMENTS = table(
    honoured=("torch_dtype", "dtype"),
    no_effect=("attn_implementation", "device_map", "low_cpu_mem_usage", "trust_remote_code"),
    refused={
        "use_safetensors": only(True, None, advice="weights are read from safetensors alone; remove the entry"),
    }
    | {
        name: only(None, "", advice="remove the entry and keep the weights that are meant in the folder")
        for name in (
            "revision",
            "subfolder",
            "variant",
            "quantization_config",
            "load_in_8bit",
            "load_in_4bit",
            "file_name",
            "gguf_file",
            "key_mapping",
            "adapter_kwargs",
            "state_dict",
            "ignore_mismatched_sizes",
        )
    },
)

CONFIG_SENTENCE_TRANSFORMERS = table(
    honoured=("prompts", "default_prompt_name", "similarity_fn_name"),
    no_effect=("__version__", "requirements"),
    refused={
        "model_type": only("SentenceTransformer", None),
        "truncate_dim": only(
            None, advice="remove the entry, and give --matryoshka_dims to convert and --dims to encode"
        ),
    },
)

_POOLING_FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
POOLING = table(
    honoured=(
        "word_embedding_dimension",
        "embedding_dimension",
        "pooling_mode",
        "include_prompt",
        *(f"pooling_mode_{name}" for name in _POOLING_FLAGS),
    )
)
DENSE = table(
    honoured=("in_features", "out_features", "bias", "activation_function"),
    no_effect=("init_weight", "init_bias"),
    refused={
        "module_input_name": only("sentence_embedding"),
        "module_output_name": only("sentence_embedding", None),
        "use_residual": only(False, None),
    },
)
NORMALIZE = table(
    refused={"module_input_name": only("sentence_embedding"), "module_output_name": only("sentence_embedding", None)}
)

# Entries of every config.json: of training, generation, heads of other tasks, and where the file comes from.
_CONFIG_NO_EFFECT = (
    "_name_or_path",
    "name_or_path",
    "architectures",
    "transformers_version",
    "gradient_checkpointing",
    "use_cache",
    "initializer_range",
    "initializer_factor",
    "initializer_cutoff_factor",
    "output_attentions",
    "output_past",
    "return_dict",
    "use_return_dict",
    "torchscript",
    "problem_type",
    "id2label",
    "label2id",
    "num_labels",
    "finetuning_task",
    "classifier_dropout",
    "classifier_dropout_rate",
    "bos_token_id",
    "eos_token_id",
    "sep_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "mask_token_id",
    "tie_word_embeddings",
    "tie_encoder_decoder",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "is_encoder_decoder",
    "prefix",
    "prefix_token_id",
    "task_specific_params",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "is_matryoshka",
    "model_name",
    "language",
    "directionality",
    "license",
    "tags",
    "library_name",
    "unsloth_version",
    "unsloth_fixed",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "dropout",
    "dropout_rate",
    "embedding_dropout",
    "mlp_dropout",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sep_token_ids",
    "pad_token_type_id",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "tf_legacy_loss",
    "use_bfloat16",
    "pretraining_tp",
    "sentence_transformers",
)
# Entries that every family reads, or that would change what every family computes.
CONFIG = table(
    honoured=(
        "model_type",
        "max_position_embeddings",
        "matryoshka_dimensions",
        "tokenizer_class",
        "torch_dtype",
        "dtype",
        "pad_token_id",
    ),
    no_effect=_CONFIG_NO_EFFECT,
    refused={
        "quantization_config": only(None, advice="quantised weights cannot be trained; get the float ones"),
        "pruned_heads": only(None, {}, advice="get a checkpoint with all its heads"),
        "is_decoder": only(False, None),
        "add_cross_attention": only(False, None),
        "output_hidden_states": only(False, None, advice="set it to false"),
        "auto_map": HONOURED,  # an error of its own
        "custom_pipelines": HONOURED,
        "transformers_weights": only(
            None, "model.safetensors", advice="rename that file to model.safetensors and remove the entry"
        ),
        "configuration_files": only(None, [], ["config.json"], advice="keep the config.json that is meant"),
        "partial_rotary_factor": only(None, 1, 1.0),
    },
)
