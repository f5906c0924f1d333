"""A model packed to few bits: what is written and said, how it opens, and what is refused. Damage is found as in any bundle."""

import shutil

import numpy as np
import pytest
from tiny_models import small_model

from embed import arrays, bundles, documents, files, trees
from embed.averaging import lineage
from embed.errors import DataError, NumericError, UsageError
from embed.inference.model import open_model
from embed.models.quantization import PRESETS
from embed.quantized_arrays import rounded
from embed.workflows import export, packed_bundle


@pytest.fixture(scope="module")
def packed(bundle, tmp_path_factory):
    """The tiny model with a scale for each channel; tests must not change it."""
    folder = tmp_path_factory.mktemp("packed") / "mixed"
    packed_bundle.run(bundle, folder, "mixed_channels")
    return folder


@pytest.mark.slow
def test_it_opens_with_the_values_that_rounded_weights_have(bundle, packed):
    expected = open_model(bundle, weights="mixed_channels")
    model = open_model(packed)
    texts = ["a b c", "k l"]
    np.testing.assert_array_equal(model.encode(texts), expected.encode(texts))
    assert np.abs(model.encode(texts) - open_model(bundle).encode(texts)).max() > 1e-4
    assert model.weight_bytes == expected.weight_bytes < open_model(bundle).weight_bytes / 4
    assert model.digest != open_model(bundle).digest


def test_what_is_stored_and_described(bundle, packed):
    manifest, before = files.verify_manifest(packed), files.read_manifest(bundle)
    assert manifest["trees"] == before["trees"]  # as which it is read
    description, original = bundles.read_model_json(packed), bundles.read_model_json(bundle)
    assert description.pop("quantization") == PRESETS["mixed_channels"]().describe()
    assert description.pop("lineage") == {
        "initial": files.folder_digest(bundle),
        "quantized": "mixed_channels",
        "from": original.pop("lineage"),
    }
    assert description == original
    lineage.check([packed, bundle])  # they have an ancestor in common
    assert bundles.tokenizer_file(packed).read_bytes() == bundles.tokenizer_file(bundle).read_bytes()


def test_norms_and_what_blocks_do_not_divide_stay_as_they_are(bundle, tmp_path, capsys):
    packed_bundle.run(bundle, tmp_path / "blocks", "int8_blocks")
    printed = capsys.readouterr().out
    assert printed.startswith(f"packing    {bundle} as int8_blocks\nweights    ")
    assert "weights    stay float32: encoder/embedding/table has 16 inputs, not a multiple of 32; " in printed
    assert f"note       the values of 1 arrays were rounded; see what that costs: embed evaluate {tmp_path}" in printed
    before, after = (trees.flatten(arrays.load_numpy(f)) for f in (bundle, tmp_path / "blocks"))
    path = "encoder/stack/layers/mlp/down/kernel"
    schemes = PRESETS["int8_blocks"]().plan(arrays.load_numpy(bundle), small_model(64)[0].axes).schemes
    assert list(schemes) == [path]
    np.testing.assert_array_equal(after.pop(path), rounded(before.pop(path), schemes[path]))
    assert all(after[p].tobytes() == x.tobytes() for p, x in before.items())


@pytest.mark.slow
def test_packed_again_it_keeps_every_value_and_another_quantisation_is_noted(packed, tmp_path, capsys):
    export.run(packed, tmp_path / "again", format="bundle")
    printed = capsys.readouterr().out
    assert f"weights    have the values of {packed}, to the bit" in printed and "note" not in printed
    before, after = (trees.flatten(arrays.load_numpy(f)) for f in (packed, tmp_path / "again"))
    assert all(after[p].tobytes() == x.tobytes() for p, x in before.items())
    export.run(packed, tmp_path / "other", format="bundle", quantization="int8_blocks")
    assert f"note       {packed} is quantised as mixed_channels; its values are rounded again, as int8_blocks" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"format": "bundle"},
            "was not trained for a quantisation; choose one: --quantization=int8_blocks|int4_blocks|mixed",
        ),
        ({"format": "bundle", "quantization": "int4_block"}, "--quantization=int4_block; did you mean 'int4_blocks'?"),
        ({"quantization": "int4_blocks"}, "--quantization=int4_blocks goes with --format=bundle"),
        ({"format": "bundle", "dtype": "bfloat16"}, "--dtype=bfloat16 goes with --format=sentence-transformers"),
        ({"format": "bundle", "scores": "s.json"}, "--scores goes into the model card, which a bundle does not have"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(bundle, tmp_path, options, message):
    with pytest.raises(UsageError) as caught:
        export.run(bundle, tmp_path / "out", **options)
    assert message in str(caught.value) and not (tmp_path / "out").exists()


def test_weights_without_a_scale_are_refused(bundle, tmp_path, monkeypatch):
    trained = packed_bundle.origin.open_trained(bundle)
    object.__setattr__(trained, "read", lambda path: np.full(trained.shapes[path], 1e8, np.float32))
    monkeypatch.setattr(packed_bundle.origin, "open_trained", lambda model: trained)
    with pytest.raises(NumericError, match="bundle: encoder/embedding/table: holds values .* too large for scales"):
        packed_bundle.run(bundle, tmp_path / "out", "mixed_channels")
    assert not (tmp_path / "out").exists()


def test_a_damaged_byte_is_found(packed, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(packed, folder)
    largest = max((p for p in (folder / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(DataError, match="its sha256 differs"):
        open_model(folder)


@pytest.mark.parametrize("quantization", [{"name": "x"}, {"name": "x", "rules": [{"pattern": "k", "bits": 5}]}, "int4"])
def test_a_model_json_with_another_quantisation_is_refused(packed, tmp_path, quantization):
    folder = tmp_path / "copy"
    shutil.copytree(packed, folder)
    description = documents.read_json(folder / "model.json")
    files.write_json(folder / "model.json", {**description, "quantization": quantization})
    with pytest.raises(DataError, match="quantization; restore it|quantization.* restore it"):
        bundles.read_model_json(folder)
