"""What `convert` says and refuses; folders of every family are converted in tests/interop."""

import dataclasses
import types

import pytest
from tiny_models import small_module

from embed import files
from embed.errors import StorageError, UsageError
from embed.interop import convert as conversion
from embed.interop import hub
from embed.interop import source as sources
from embed.workflows import convert

NORMS = 4 * 16 + 2 * 8  # of one layer: four of its width, and two of a head's


@dataclasses.dataclass
class Calls:
    """What the stand-ins of the hub, the reader and the writer were given."""

    fetched: list = dataclasses.field(default_factory=list)
    read: list = dataclasses.field(default_factory=list)
    written: list = dataclasses.field(default_factory=list)


@pytest.fixture
def calls(monkeypatch, tokenizer) -> Calls:
    seen = Calls()
    source = types.SimpleNamespace(
        module=small_module(64),
        family=types.SimpleNamespace(model_type="gemma3_text"),
        tokenizer=tokenizer,
        max_length=48,
        prompts={"none": "{content}", "query": "ask: {content}", "document": "t {content}"},
        notes=("the folder says it twice",),
    )

    def read(folder, **options):
        seen.read.append((folder, options))
        return source

    def write(opened, output, name, progress, text_normalization):
        assert opened is source
        seen.written.append((output, name, text_normalization))
        output.mkdir()
        files.write_manifest(output)

    monkeypatch.setattr(hub, "fetch", lambda *arguments: seen.fetched.append(arguments) or "fetched")
    monkeypatch.setattr(sources, "read", read)
    monkeypatch.setattr(conversion, "convert", write)
    return seen


def test_options_reach_the_reader_and_the_writer(calls, tmp_path, capsys):
    convert.run("org/name", tmp_path / "a", revision="v1")
    given = {"prompts": {"query": "q {content}"}, "matryoshka_dims": [8, 4], "max_length": 9}
    convert.run(
        "there", tmp_path / "b", **given, text_normalization="NFC, strip", bidirectional=True, with_decoder=True
    )
    assert calls.fetched == [("org/name", "v1"), ("there", None)]
    plain = {"prompt_overrides": {}, "matryoshka_dims": (), "max_length": None, "changes": None, "with_decoder": False}
    changed = {
        "prompt_overrides": given["prompts"],
        "matryoshka_dims": (8, 4),
        "max_length": 9,
        "changes": {"causal": False},
        "with_decoder": True,
    }
    assert calls.read == [("fetched", plain), ("fetched", changed)]
    assert calls.written == [(tmp_path / "a", "org/name", "none"), (tmp_path / "b", "there", "NFC, strip")]
    assert f"wrote      {tmp_path}/a: digest " in capsys.readouterr().out


def test_what_was_found_is_said_line_by_line(calls, tmp_path, capsys, tokenizer):
    convert.run("org/name", tmp_path / "a")
    # By hand: 64 tokens; two layers of attention (queries 256, keys and values 128 each, output 256), MLP (3 x 512) and norms;
    # a last norm, and maps of 16 x 24 and 24 x 16.
    lines = capsys.readouterr().out.splitlines()
    head, _, rest = lines[0].partition(" parameters, ")
    assert head == f"model      gemma3_text: {64 * 16 + 2 * (768 + 1536 + NORMS) + 16 + 2 * 384:,}"
    assert rest == "2 layers of width 16"
    assert lines[1:5] == [
        "           MeanPooling, 16 -> 24 -> 16, Matryoshka sizes 16, 8, 4",
        f"tokenizer  {tokenizer.vocab_size:,} tokens, texts cut at 48",
        "prompts    2, such as query: 'ask: {content}'",
        "note       the folder says it twice",
    ]


def test_prompts_that_add_nothing_are_none():
    assert convert._prompt_line({"none": "{content}"}) == "none"


def test_a_wrong_normalization_and_an_output_that_is_there_are_refused_before_anything_is_fetched(calls, tmp_path):
    with pytest.raises(UsageError, match="^--text_normalization=NFC; did you mean|known: "):
        convert.run("org/name", tmp_path / "a", text_normalization="NFC")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("")
    with pytest.raises(StorageError, match="b: already exists"):
        convert.run("org/name", tmp_path / "b")
    assert calls == Calls()


@pytest.mark.parametrize("has_texts", [True, False])
def test_towers_are_given_how_texts_are_normalised_or_it_is_refused(calls, tmp_path, monkeypatch, has_texts):
    opened, written = types.SimpleNamespace(tokenizer="t" if has_texts else None), []
    monkeypatch.setattr(convert.images, "is_one", lambda folder: True)
    monkeypatch.setattr(convert.images, "read", lambda folder: opened)
    monkeypatch.setattr(convert, "_write_images", lambda *given: written.append(given))
    if has_texts:
        convert.run("towers", tmp_path / "a", text_normalization="NFC, strip")
        assert written == [("towers", opened, tmp_path / "a", "NFC, strip")]
    else:
        with pytest.raises(
            UsageError, match="--text_normalization=NFC, strip has no effect on images alone; leave it out"
        ):
            convert.run("towers", tmp_path / "a", text_normalization="NFC, strip")
        assert not written
