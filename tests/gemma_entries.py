"""The entries of config.json that the Gemma families share, and the fields that they become."""

SIZES = {
    "vocab_size": 264,
    "hidden_size": 12,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 20,
    "rms_norm_eps": 1e-6,
    "sliding_window": 8,
    "query_pre_attn_scalar": 16,
}
FIELDS = {
    "vocab_size": 264,
    "width": 12,
    "num_layers": 4,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "mlp_dim": 20,
    "norm_eps": 1e-6,
    "window": 8,
    "query_scale": 0.25,
}
