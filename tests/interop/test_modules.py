"""The modules of a sentence-transformers folder: their order, pooling in both dialects, linear maps, and all that is refused."""

import json

import pytest
from foreign_folders import edit, error

from embed.errors import DataError
from embed.interop import source as sources
from embed.models.pooling import FirstPooling, LastPooling, MeanPooling

MODULES = {
    "foreign type": (
        lambda m: m[1].update(type="my_package.Pooling"),
        "module 'my_package.Pooling' is code of its own",
    ),
    "look-alike": (lambda m: m[1].update(type="sentence_transformersx.Pooling"), "is code of its own"),
    "no type": (lambda m: m[1].pop("type"), "module '' is code of its own"),
    "unsupported": (
        lambda m: m[1].update(type="sentence_transformers.models.LSTM"),
        "module 'sentence_transformers.models.LSTM' is not supported; known: Transformer, Pooling, Dense, Normalize",
    ),
    "path up": (lambda m: m[1].update(path="../1_Pooling"), "module path '../1_Pooling' leads out of the folder"),
    "path up inside": (lambda m: m[1].update(path="a/../../b"), "module path 'a/../../b' leads out of the folder"),
    "absolute path": (lambda m: m[1].update(path="/etc"), "module path '/etc' leads out of the folder"),
    "order": (lambda m: m.reverse(), "modules in the order Normalize, Dense, Dense, Pooling, Transformer; only"),
    "dense before pooling": (lambda m: m.insert(1, m.pop(2)), "in the order Transformer, Dense, Pooling, Dense"),
    "normalised twice": (
        lambda m: m.append({**m[-1], "name": "9"}),
        "Normalize, Normalize; only Transformer, Pooling, Dense",
    ),
    "two transformers": (lambda m: m.insert(0, {**m[0], "name": "9"}), "in the order Transformer, Transformer"),
    "no transformer": (lambda m: m.pop(0), "in the order Pooling, Dense"),
    "no pooling": (lambda m: m.pop(1), "in the order Transformer, Dense"),
    "nothing": (lambda m: m.clear(), "it lists no module; restore the file"),
    "one name twice": (lambda m: m[3].update(name=m[2]["name"]), "two modules have one name, of which"),
}


@pytest.mark.parametrize("kind", MODULES)
def test_modules_that_are_refused(kind, theirs):
    change, message = MODULES[kind]
    edit(theirs / "modules.json", change)
    err = error(theirs)
    assert str(theirs / "modules.json") in err and message in err


@pytest.mark.parametrize("kind", ["foreign type", "unsupported", "path up", "order"])
def test_refused_modules_leave_nothing_behind(kind, theirs, refused):
    change, message = MODULES[kind]
    edit(theirs / "modules.json", change)
    assert message in refused(theirs)


POOLING = {
    "max": {"pooling_mode_max_tokens": True},
    "weighted": {"pooling_mode_weightedmean_tokens": True},
    "two": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
    "new max": {"pooling_mode": "max"},
    "new two": {"pooling_mode": ["mean", "cls"]},
    "nothing": {"pooling_mode": None},
}


@pytest.mark.parametrize("kind", POOLING)
def test_pooling_that_is_not_supported(kind, theirs, foreign):
    foreign.write_json(theirs / "1_Pooling" / "config.json", POOLING[kind])
    err = error(theirs)
    assert f"{theirs / '1_Pooling' / 'config.json'}: pooling" in err and "known: mean, cls, lasttoken" in err


def test_pooling_that_is_not_supported_at_the_command_line(theirs, foreign, refused):
    foreign.write_json(theirs / "1_Pooling" / "config.json", POOLING["max"])
    assert "pooling max is not supported" in refused(theirs)


def test_pooling_without_the_prompt(theirs):
    edit(theirs / "1_Pooling" / "config.json", lambda c: c.update(include_prompt=False))
    assert "leaves the prompt out of the pooling" in error(theirs)


@pytest.mark.parametrize(
    ("flags", "module"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, FirstPooling),
        ({"pooling_mode_mean_tokens": True}, MeanPooling),
        ({"pooling_mode_lasttoken": True}, LastPooling),
        ({"pooling_mode": "cls"}, FirstPooling),
        ({"pooling_mode": "lasttoken"}, LastPooling),
        ({"pooling_mode": ["mean"]}, MeanPooling),
        ({"pooling_mode_mean_tokens": False}, MeanPooling),  # sentence-transformers' default
        ({"pooling_mode": "cls", "pooling_mode_cls_token": True}, FirstPooling),
    ],
)
def test_both_dialects_of_pooling(flags, module, theirs, foreign):
    foreign.write_json(theirs / "1_Pooling" / "config.json", flags)
    assert type(sources.read(theirs).module.pooling) is module


DENSE = {
    "bias": ({"bias": True}, "a linear map with a bias; only maps without bias and activation are supported"),
    "tanh": ({"activation_function": "torch.nn.modules.activation.Tanh"}, "a linear map with Tanh; only maps"),
    "no activation": ({"activation_function": None}, "only maps without bias and activation"),
    "in_features": ({"in_features": 13}, "in_features does not fit what comes before it"),
    "out_features": ({"out_features": None}, "out_features"),
    "out_features as text": ({"out_features": "ten"}, "out_features"),
}


@pytest.mark.parametrize("kind", DENSE)
def test_linear_maps_that_are_refused(kind, theirs):
    values, message = DENSE[kind]
    edit(theirs / "3_Dense" / "config.json", lambda c: c.update(values))
    err = error(theirs)
    assert str(theirs / "3_Dense" / "config.json") in err and message in err


@pytest.mark.parametrize("kind", ["bias", "tanh"])
def test_refused_linear_maps_leave_nothing_behind(kind, theirs, refused):
    edit(theirs / "2_Dense" / "config.json", lambda c: c.update(DENSE[kind][0]))
    assert DENSE[kind][1] in refused(theirs)


def test_two_dialects_of_pooling_that_differ(theirs):
    edit(theirs / "1_Pooling" / "config.json", pooling_mode="cls")
    source = sources.read(theirs)
    assert type(source.module.pooling) is FirstPooling
    assert any("pooling_mode cls is used, not mean of the older entries" in n for n in source.notes)


def test_a_nested_transformer_beside_a_model_at_the_top(theirs, foreign):
    nested = foreign.write_folder(theirs / "0_Transformer", tensors=foreign.draw(foreign.SHAPES["bert"], seed=9))
    modules = json.loads((theirs / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    foreign.write_json(theirs / "modules.json", modules)
    source = sources.read(theirs)
    assert source.weights == nested
    (note,) = [n for n in source.notes if "modules.json says that the transformer is in 0_Transformer" in n]
    assert "config.json, model.safetensors, tokenizer.json not read" in note


def test_a_plain_folder_says_what_was_chosen(plain, foreign, tmp_path):
    assert sources.read(plain).notes == ("no sentence-transformers modules: mean pooling, no projection",)
    # As sentence-transformers 6 chooses: the last token of a causal language model, else the mean.
    for names, module in ((["Qwen3ForCausalLM"], LastPooling), (["Qwen3Model"], MeanPooling)):
        config = {**foreign.CONFIGS["qwen3"], "architectures": names}
        qwen = sources.read(foreign.write_folder(tmp_path / names[0], "qwen3", config=config))
        assert type(qwen.module.pooling) is module
        assert f"{'lasttoken' if module is LastPooling else 'mean'} pooling" in qwen.notes[0]
    foreign.write_folder(tmp_path / "raw")
    foreign.add_modules(tmp_path / "raw", normalize=False)
    (note,) = sources.read(tmp_path / "raw").notes
    assert "leaves its vectors as they are" in note


@pytest.mark.parametrize("name", ["word_embedding_dimension", "embedding_dimension"])
def test_a_pooling_of_another_width(name, folder):
    root = folder()
    edit(root / "1_Pooling" / "config.json", **{name: 13})
    with pytest.raises(DataError, match=f"{name} = 13, but the encoder is 12 wide; get the whole checkpoint"):
        sources.read(root)
