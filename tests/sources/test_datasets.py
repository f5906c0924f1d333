"""Datasets of the Hub and of TFDS."""

import dataclasses

from source_files import PAIR, refused

from embed import sources


def test_hugging_face_datasets_name_their_package():
    try:
        import datasets  # noqa: F401
    except ImportError:
        refused(sources.HuggingFaceDataset("squad", PAIR), "Hugging Face datasets need a package", "embed[huggingface]")


def test_hugging_face_rows_are_mapped_and_placed(monkeypatch):
    import sys
    import types

    asked = []
    rows = [{"q": " a ", "t": "b"}, {"q": "c", "t": ""}]
    load = lambda name, config, split, revision: asked.append((name, config, split, revision)) or rows  # noqa: E731
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    source = sources.HuggingFaceDataset("squad", PAIR, config="plain", split="dev", revision="abc")
    assert next(source.examples()) == ("squad[dev]:0", {"query": "a", "target": "b"})
    refused(source, "squad[dev]:1: field 't' is empty")
    assert set(asked) == {("squad", "plain", "dev", "abc")}
    prints = [
        dataclasses.replace(source, **change).fingerprint() for change in ({}, {"revision": "d"}, {"config": "e"})
    ]
    assert len({str(p) for p in prints}) == 3


def test_what_the_package_refuses_is_one_line(monkeypatch):
    import sys
    import types

    def load(*given, **named):
        raise ValueError("Unknown split \"trian\". Should be one of ['train'].\nmore")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    refused(
        sources.HuggingFaceDataset("squad", PAIR, split="trian"),
        "squad[trian]: cannot be loaded (Unknown split",
        "correct HuggingFaceDataset.name",
    )
