"""What an export starts from: the parameters that are served, and what is told of the model."""

import jax
import numpy as np
import pytest

from embed import arrays, checkpoints, files, trees
from embed.inference import model as inference
from embed.interop import origin


@pytest.fixture(scope="module")
def model(gemma_bundle):
    return inference.open_model(gemma_bundle)


def test_moving_averages_are_what_is_exported(gemma_bundle, foreign, tmp_path):
    """A step folder of a run with a moving average: every form writes the average, not the last parameters."""
    params = arrays.load_numpy(gemma_bundle)
    average = jax.tree.map(lambda x: x * np.float32(2), params)
    contents = {n: (gemma_bundle / n).read_bytes() for n in ("model.json", "tokenizer.json")}
    saver = checkpoints.Saver(tmp_path / "run" / "checkpoints")
    saver.save(7, {"params": average, "learned": {"model": params}}, contents)
    saver.close()
    trained = origin.open_trained(tmp_path / "run")
    assert trained.folder.name == "7" and trained.digest == files.folder_digest(trained.folder)
    ours = trees.flatten(average)
    assert set(trained.shapes) == set(ours)
    assert all(np.array_equal(trained.read(path), ours[path]) for path in ours)
