"""A tiny EmbeddingGemma 2 of texts and images."""

from embed.models.embedder import Embedder
from embed.models.embedding_gemma2 import EmbeddingGemma2
from embed.models.gemma_vision import GemmaVision
from embed.models.mixed_embedder import ImageTokens, MixedEmbedder
from embed.models.pooling import MeanPooling

VISION = {
    "patch_size": 2,
    "width": 12,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "mlp_dim": 20,
    "pooling": 2,
    "max_positions": 9,
}
TEXT = {
    "width": 16,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "global_num_kv_heads": 1,
    "global_head_dim": 10,
    "mlp_dim": 20,
    "per_layer_dim": 8,
    "output_dim": 12,
    "window": 2,
    "global_every": 2,
}
SIDE = 8  # pixels: 4 x 4 patches, 2 x 2 vectors


def mixed_embedder(vocab_size: int = 64, vision=(), **fields) -> MixedEmbedder:
    text = Embedder(EmbeddingGemma2(vocab_size=vocab_size, **TEXT), MeanPooling())
    return MixedEmbedder(
        text, ImageTokens(GemmaVision(**{**VISION, **dict(vision)}), SIDE), **{"max_images": 2, **fields}
    )
