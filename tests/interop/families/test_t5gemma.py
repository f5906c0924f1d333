"""T5Gemma: Gemma's tensors under other names, capped logits, and a decoder that is described but not there."""

import pytest
from gemma_entries import FIELDS, SIZES

from embed.errors import DataError
from embed.interop.families.gemma3 import GEMMA3
from embed.interop.families.t5gemma import T5GEMMA
from embed.models.t5gemma import T5GemmaEncoder


def test_what_the_file_does_not_say_is_as_in_transformers():
    assert T5GEMMA.fields(SIZES) == {**FIELDS, "global_every": 2, "softcap": 50.0, "rope_base": 10_000.0}


@pytest.mark.parametrize(("given", "softcap"), [(30, 30.0), (None, None)])
def test_the_cap_of_logits(given, softcap):
    assert T5GEMMA.fields({**SIZES, "attn_logit_softcapping": given})["softcap"] == softcap


@pytest.mark.parametrize("given", [0, -1.0, "50", True])
def test_a_cap_that_cannot_be_is_refused(given):
    with pytest.raises(DataError, match="config.json: attn_logit_softcapping = "):
        T5GEMMA.fields({**SIZES, "attn_logit_softcapping": given})


def test_its_tensors_are_gemmas_without_head_norms_and_with_other_names_around_attention():
    layer = "layers.{}."
    theirs = {t.paths: t.name for t in T5GEMMA.tensors}
    gemmas = {t.paths: t.name for t in GEMMA3.tensors}
    head_norms = [f"stack/layers/attention/{n}_norm/{p}" for n in ("query", "key") for p in ("scale", "bias")]
    assert {path for paths in gemmas.keys() - theirs.keys() for path in paths} == set(head_norms)
    assert theirs.keys() <= gemmas.keys()
    changed = {gemmas[p]: name for p, name in theirs.items() if gemmas[p] != name and name.endswith("weight")}
    assert changed == {
        f"{layer}input_layernorm.weight": f"{layer}pre_self_attn_layernorm.weight",
        f"{layer}post_attention_layernorm.weight": f"{layer}post_self_attn_layernorm.weight",
    }


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_an_encoder_that_is_written_comes_back(softcap):
    given = {**FIELDS, "global_every": 2, "softcap": softcap, "rope_base": 8_000.0}
    config = T5GEMMA.config(T5GemmaEncoder(**given))
    assert T5GEMMA.fields(config["encoder"]) == given
    assert config["encoder"]["layer_types"] == ["sliding_attention", "full_attention"] * 2
    assert config["decoder"] == {**config["encoder"], "cross_attention_hidden_size": 12}
    assert (config["hidden_size"], config["vocab_size"], config["is_encoder_decoder"]) == (12, 264, False)
