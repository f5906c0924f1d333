"""Exports in an older sentence-transformers and transformers, from a folder of its own and without a network.

$EMBED_OLD_STACK_PYTHON names the interpreter of the older environment, which need not have our package.
"""

import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import sentence_transformers
from parity_foreign import SHAPES, TEXTS, embed, open_reported, theirs

TOLERANCE = 1e-6
# sentence-transformers 5.1.2 has no way to load T5Gemma, and its transformers no EmbeddingGemma 2.
NAMES = [name for name, shape in SHAPES.items() if shape.family not in ("t5gemma", "embedding_gemma2")]
pytestmark = pytest.mark.slow


def cut_off() -> list[str]:
    """Returns the command in front of another that takes its network away, where this machine allows it."""
    front = ["unshare", "-rn"]
    works = shutil.which("unshare") and subprocess.run([*front, "true"], capture_output=True).returncode == 0
    return front if works else []


@pytest.fixture(scope="module")
def folders(made, minilm, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Copies of all exports, away from the repository and from what they were made of."""
    place = tmp_path_factory.mktemp("away")
    found = {name: shutil.copytree(made(name).export, place / name) for name in NAMES}
    assert embed("convert", minilm, place / "bundle") == 0
    assert embed("export", place / "bundle", place / "minilm") == 0
    shutil.rmtree(place / "bundle")
    return found | {"minilm": place / "minilm"}


@pytest.fixture(scope="module")
def old(folders, tmp_path_factory):
    """{NAME/PROMPT: vectors} of the older environment."""
    python = os.environ.get("EMBED_OLD_STACK_PYTHON")
    if not python:
        pytest.skip("EMBED_OLD_STACK_PYTHON names no interpreter with an older sentence-transformers")
    work = tmp_path_factory.mktemp("old")
    shutil.copy(pathlib.Path(__file__).with_name("old_stack.py"), work / "encode.py")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    asked = json.dumps({"folders": {name: str(path) for name, path in folders.items()}, "texts": TEXTS})
    command = [*cut_off(), python, "encode.py", "vectors.npz"]
    done = subprocess.run(command, cwd=work, env=environment, input=asked, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    version = done.stdout.split()[-2]
    assert version.split(".")[0] < sentence_transformers.__version__.split(".")[0]
    for word in ("newly initialized", "not used when initializing", "MISSING", "UNEXPECTED"):
        assert word not in done.stderr
    with np.load(work / "vectors.npz", allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


@pytest.mark.parametrize("name", [*NAMES, "minilm"])
def test_old_and_new_give_the_same_vectors(name, folders, old, record_property):
    model = open_reported(folders[name])[0]
    expected = {f"{name}/{prompt or ''}": theirs(model, TEXTS, prompt_name=prompt) for prompt in (None, *model.prompts)}
    found = {key: vectors for key, vectors in old.items() if key.startswith(f"{name}/")}
    assert found.keys() == expected.keys()
    assert len(found) >= 3
    errors = {key: float(np.max(np.abs(found[key] - expected[key]))) for key in expected}
    record_property("largest_error", max(errors.values()))
    print(f"{name}: largest error {max(errors.values()):.2e}")
    assert {key: error for key, error in errors.items() if not error <= TOLERANCE} == {}
