"""Who comes from whom: runs of one start, conversions of the same weights, soups of relatives; strangers are refused."""

import numpy as np
import pytest

from embed import bundles, checkpoints, files
from embed.averaging import lineage, soup
from embed.errors import DataError


@pytest.fixture
def write(tmp_path):
    """write(name, lineage) returns a bundle of that lineage."""

    def make(name, own):
        description = bundles.model_json(
            {"type": "Embedder", "encoder": {"type": "Gemma"}},
            tokenizer_options={},
            tokenizer_digest="v",
            prompts={},
            matryoshka_dims=(2,),
            lengths={"query": 8},
            lineage=own,
        )
        params = {"x": np.float32([len(name), 1.0])}
        return checkpoints.write_bundle(tmp_path / name, params, bundles.contents(description, "tokenizer.model", b"x"))

    return make


def digest(folder):
    return files.folder_digest(folder)


def run_of(folder):
    return {"initial": digest(folder), "from": bundles.read_model_json(folder)["lineage"], "step": 10}


def test_runs_of_one_start_are_related(write):
    base = write("base", {"initial": "random, seed 0", "step": 5})
    one, two = write("one", run_of(base)), write("twoo", run_of(base))
    lineage.check([one, two])
    lineage.check([base, one])
    lineage.check([write("other", {"initial": "random, seed 0"}), two])


def test_two_conversions_of_the_same_weights_are_related(write):
    weights = {"model.safetensors": "abc"}
    one = write("one", {"converted_from": "here", "weights": weights})
    two = write("two-again", {"converted_from": "there", "weights": weights})
    lineage.check([one, write("tuned", run_of(two))])


def test_an_average_comes_from_what_all_its_ingredients_come_from(write):
    base, stranger = write("base", {"initial": "random, seed 0"}), write("far", {"initial": "random, seed 1"})
    one, two = write("one", run_of(base)), write("twoo", run_of(base))
    mixed = write("soup", soup.lineage([one, two], [0.5, 0.5], "uniform"))
    assert lineage.ancestors(bundles.read_model_json(mixed)["lineage"]) == {digest(base), "random, seed 0"}
    lineage.check([mixed, base])
    wild = write("wild-soup", soup.lineage([one, stranger], [0.5, 0.5], "uniform"))
    assert lineage.ancestors(bundles.read_model_json(wild)["lineage"]) == set()
    with pytest.raises(DataError, match="wild-soup: has no ancestor in common .* --unrelated"):
        lineage.check([one, wild])


def test_strangers_are_refused(write):
    one, two = write("one", {"initial": "random, seed 0"}), write("two-far", {"initial": "random, seed 1"})
    with pytest.raises(DataError, match="two-far: has no ancestor in common with .*one"):
        lineage.check([one, two])
    lineage.check([one])


def test_related_in_pairs_is_not_enough(write):
    # b is related to a and to c, but a and c are not.
    a, c = write("a", {"initial": "x"}), write("ccc", {"initial": "y"})
    b = write("bb", {"initial": "x", "from": {"initial": "y"}})
    lineage.check([a, b])
    lineage.check([b, c])
    with pytest.raises(DataError, match="no ancestor in common"):
        lineage.check([a, b, c])
