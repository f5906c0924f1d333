"""What a name of a model means: a folder here, or a download from the Hub, of which nothing but data is asked for."""

import fnmatch
import sys
import types

import pytest

from embed.errors import DataError, StorageError, UsageError
from embed.interop import hub


def test_the_hub_is_only_asked_for_what_is_not_here(plain, monkeypatch, refused):
    assert hub.fetch(str(plain)) == plain
    err = refused(plain, "--revision=main", code=64)
    assert "--revision goes with a Hub name" in err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    err = refused("somebody/something", code=64)
    assert "to download it huggingface_hub is needed; run: pip install 'embed[huggingface]'" in err


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """downloads(error) puts a Hub in place that raises it or gives a folder; returns the calls it gets."""

    def install(error=None) -> list:
        calls = []

        def snapshot_download(name, **options):
            calls.append((name, options))
            if error is not None:
                raise error
            return str(tmp_path)

        monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
        return calls

    return install


def test_data_is_downloaded_and_no_code(downloads, tmp_path):
    calls = downloads()
    assert hub.fetch("some-body/some.thing_v2", "main") == tmp_path
    ((name, options),) = calls
    assert (name, options["revision"]) == ("some-body/some.thing_v2", "main")
    wanted = lambda path: any(fnmatch.fnmatch(path, p) for p in options["allow_patterns"])  # noqa: E731
    for path in (
        "config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model", "vocab.txt",
        "1_Pooling/config.json", "2_Dense/model.safetensors", "chat_template.jinja",
    ):  # fmt: skip
        assert wanted(path), path
    for path in ("pytorch_model.bin", "modeling.py", "model.pt", "onnx/model.onnx", "custom/code.py", "x.pkl"):
        assert not wanted(path), path


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/no/where", "./a/b", "../a", "a b/c", "-a/b"])
def test_what_cannot_be_a_hub_name_is_a_folder(name, downloads):
    calls = downloads()
    assert str(hub.fetch(name)) == name.removeprefix("./")
    assert calls == []


def test_a_revision_of_what_cannot_be_a_hub_name_is_refused(downloads):
    downloads()
    with pytest.raises(UsageError, match="--revision goes with a Hub name, a/b/c is a folder here"):
        hub.fetch("a/b/c", "main")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError("\nno route\nto host"), StorageError, r"it cannot be downloaded \(no route\)"),
        (OSError(), StorageError, r"it cannot be downloaded \(OSError\)"),
        (ValueError("x" * 300), DataError, r"the Hub refuses it \(x{160}\); check the name"),
        (RuntimeError("gated"), DataError, r"the Hub refuses it \(gated\); check the name"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Exception) else None,
)
def test_a_download_that_fails_is_one_line(error, kind, message, downloads):
    downloads(error)
    with pytest.raises(kind, match=f"^a/b: no such folder, and {message}$"):
        hub.fetch("a/b")
