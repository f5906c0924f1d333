"""The whole model against an implementation in numpy and float64, one position, head and layer at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_calls import by_text

from embed.models import api


def rms_norm(x, scale):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-6) * (1 + scale)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rotated(x, position, base):
    """Returns one head's vector at `position`: value i of the first half turns with value i of the second."""
    half = len(x) // 2
    out = np.empty_like(x)
    for i in range(half):
        angle = position * base ** (-2 * i / len(x))
        out[i] = x[i] * np.cos(angle) - x[half + i] * np.sin(angle)
        out[half + i] = x[half + i] * np.cos(angle) + x[i] * np.sin(angle)
    return out


def attention(x, p, real, radius, base):
    """Returns attention over the real positions of one text [L, D], within `radius` when it is given."""
    length, (_, heads, size) = len(x), p["query"]["kernel"].shape
    groups = p["key"]["kernel"].shape[1]
    out = np.zeros_like(x)
    for h in range(heads):
        g = h // (heads // groups)
        q = rms_norm(x @ p["query"]["kernel"][:, h], p["query_norm"]["scale"])
        k = rms_norm(x @ p["key"]["kernel"][:, g], p["key_norm"]["scale"])
        v = x @ p["value"]["kernel"][:, g]
        q, k = (np.stack([rotated(y[t], t, base) for t in range(length)]) for y in (q, k))
        for t in range(length):
            seen = [s for s in range(length) if real[s] and (radius is None or abs(t - s) <= radius)]
            if not seen:
                continue
            logits = np.array([q[t] @ k[s] / np.sqrt(size) for s in seen])
            weights = np.exp(logits - logits.max())
            mixed = sum(w * v[s] for w, s in zip(weights / weights.sum(), seen))
            out[t] += mixed @ p["output"]["kernel"][h]
    return out


def encode(encoder, params, tokens, real):
    """Returns one vector per token of one text."""
    x = params["embedding"]["table"][tokens] * np.sqrt(encoder.width)
    for layer in range(encoder.num_layers):
        p = jax.tree.map(lambda a, n=layer: a[n], params["stack"]["layers"])
        full = (layer + 1) % encoder.global_every == 0
        radius, base = (None, encoder.global_rope_base) if full else (encoder.window / 2, encoder.local_rope_base)
        y = attention(rms_norm(x, p["attention_norm"]["scale"]), p["attention"], real, radius, base)
        x = x + rms_norm(y, p["attention_post_norm"]["scale"])
        y = rms_norm(x, p["mlp_norm"]["scale"])
        y = (gelu(y @ p["mlp"]["gate"]["kernel"]) * (y @ p["mlp"]["up"]["kernel"])) @ p["mlp"]["down"]["kernel"]
        x = x + rms_norm(y, p["mlp_post_norm"]["scale"])
    return rms_norm(x, params["final_norm"]["scale"])


def embed(module, params, tokens, mask):
    rows = []
    for text, real in zip(np.asarray(tokens), np.asarray(mask)):
        x = encode(module.encoder, params["encoder"], text, real)[real].mean(0)
        for i in range(len(module.projection)):
            x = x @ params[f"projection_{i}"]["kernel"]
        rows.append(x / np.linalg.norm(x))
    return np.stack(rows)


def in_float64(params):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), params)


CASES = {
    "windowed": {},
    "radius of one": {"window": 2},
    "odd window": {"window": 5},
    "window wider than the text": {"window": 64},
    "one key-value head": {"num_kv_heads": 1},
    "as many key-value heads as heads": {"num_kv_heads": 4},
    "all layers global": {"global_every": 1},
    "no global layer": {"global_every": 9},
    "small rotary bases": {"local_rope_base": 3.0, "global_rope_base": 50.0},
}


@pytest.mark.parametrize("case", CASES)
def test_model_matches_numpy(tiny, case):
    module = tiny.make(**CASES[case])
    model = api.build(module)
    params = tiny.draw(model.init, seed=3)
    tokens, mask = tiny.texts()
    found = tiny.fast(by_text(model))(params, tokens, mask)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, embed(module, in_float64(params), tokens, mask), rtol=0, atol=1e-5)


def test_encoder_matches_numpy_at_every_real_token(tiny):
    encoder = tiny.make().encoder
    tokens, mask = tiny.texts()
    params = tiny.params["encoder"]
    found = np.asarray(tiny.fast(encoder.apply)({"params": params}, tokens, mask))
    for row, text, real in zip(found, np.asarray(tokens), np.asarray(mask)):
        expected = encode(encoder, in_float64(params), text, real)
        np.testing.assert_allclose(row[real], expected[real], rtol=0, atol=2e-5)
