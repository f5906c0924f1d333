"""Each text is embedded once, kept on disk whole, and embedded again when what was kept is damaged."""

import numpy as np
import pytest

from embed.errors import NumericError
from embed.evaluation import embeddings
from embed.evaluation.embeddings import Embeddings, Items

TEMPLATES = {"query": "q: {content}", "document": "{title}: {content}", "alias": "q: {content}"}
QUERIES = Items(["red", "green", "red", "blue"], "query")
CORPUS = Items(["red", "a fox", "a fox"], "document", ["", "Fox", ""])


def make(model, folder=None) -> Embeddings:
    return Embeddings(model, TEMPLATES.__getitem__, folder)


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(embeddings, "_CHUNK", 2)


def asked(model) -> list[str]:
    return [t for texts, _, _ in model.calls for t in texts]


# what is embedded


def test_each_text_is_embedded_once_and_given_in_order(model):
    found = make(model)
    assert found.embed([QUERIES, CORPUS, Items(["blue", "new"], "query")]) == 7
    assert len(asked(model)) == 7
    np.testing.assert_array_equal(found.get(QUERIES), model.vectors(QUERIES.items, "query"))
    np.testing.assert_array_equal(found.get(CORPUS), model.vectors(CORPUS.items, "document", CORPUS.titles))
    assert found.get(CORPUS).dtype == np.float32
    assert found.embed([QUERIES, CORPUS]) == 0 and len(asked(model)) == 7


def test_parts_that_share_texts_share_their_vectors(model):
    found = make(model)
    found.embed([Items(["a", "b"], "query")])
    assert found.embed([Items(["b", "c", "a"], "query")]) == 1
    assert asked(model) == ["a", "b", "c"]
    np.testing.assert_array_equal(found.get(Items(["c", "a"], "query")), model.vectors(["c", "a"], "query"))


def test_the_same_text_under_another_prompt_or_title_is_another_vector(model):
    found = make(model)
    parts = [
        Items(["x"], "query"),
        Items(["x"], "document"),
        Items(["x"], "document", ["one"]),
        Items(["x"], "document", ["two"]),
    ]
    assert found.embed(parts) == 4
    for part in parts:
        np.testing.assert_array_equal(found.get(part), model.vectors(["x"], part.prompt, part.titles))
    assert len({found.get(p).tobytes() for p in parts}) == 4


def test_no_title_and_an_empty_one_are_the_same(model):
    assert make(model).embed([Items(["x"], "document"), Items(["x"], "document", [""])]) == 1


def test_two_names_of_one_template_are_the_same(model):
    assert make(model).embed([Items(["x", "y"], "query"), Items(["y", "z"], "alias")]) == 3


def test_a_title_and_a_text_are_told_apart_wherever_one_ends(model):
    found = make(model)
    one, other = Items(["c"], "document", ["a\0b"]), Items(["b\0c"], "document", ["a"])
    assert found.embed([one, other]) == 2
    assert found.get(one).tobytes() != found.get(other).tobytes()


def test_texts_with_lone_surrogates_have_keys_too():
    keys = Items(["\ud800", "\ud801"], "query").keys(TEMPLATES.__getitem__)
    assert len(set(keys)) == 2 and all(len(k) == 16 for k in keys)


def test_titles_must_be_as_many_as_texts(model):
    with pytest.raises(ValueError):
        make(model).embed([Items(["a", "b"], "document", ["only one"])])


def test_each_call_of_the_model_has_one_prompt(model):
    parts = [Items(["a"], "query"), Items(["b"], "document", ["t"]), Items(["c"], "query"), Items(["d"], "document")]
    make(model).embed(parts)
    assert sorted((sorted(texts), prompt) for texts, prompt, _ in model.calls) == [
        (["a", "c"], "query"),
        (["b", "d"], "document"),
    ]
    assert [titles for _, prompt, titles in model.calls if prompt == "query"] == [None]
    texts, _, titles = next(call for call in model.calls if call[1] == "document")
    assert dict(zip(texts, titles)) == {"b": "t", "d": ""}


def test_missing_names_each_text_once(model):
    found = make(model)
    found.embed([Items(["red"], "query")])
    assert [(part.items[row], part.prompt) for _, part, row in found.missing([QUERIES, QUERIES, CORPUS])] == [
        ("green", "query"),
        ("blue", "query"),
        ("red", "document"),
        ("a fox", "document"),
        ("a fox", "document"),
    ]


def test_progress_is_told_of_every_text(model, small_chunks):
    told = []
    make(model).embed([QUERIES, CORPUS], told.append)
    assert sum(told) == 6


def test_nothing_to_embed_asks_nothing(model):
    found = make(model)
    assert found.embed([]) == 0 and found.embed([Items([], "query")]) == 0
    assert len(found.get(Items([], "query"))) == 0 and not model.calls


# what is kept


def test_a_second_run_over_the_same_folder_embeds_nothing(model, make_model, tmp_path):
    make(model, tmp_path / "new" / "folder").embed([QUERIES, CORPUS])
    idle = make_model()
    again = make(idle, tmp_path / "new" / "folder")
    assert again.missing([QUERIES, CORPUS]) == [] and again.embed([QUERIES, CORPUS]) == 0 and not idle.calls
    np.testing.assert_array_equal(again.get(CORPUS), model.vectors(CORPUS.items, "document", CORPUS.titles))
    assert again.embed([Items(["red", "more"], "query")]) == 1
    assert asked(idle) == ["more"]
    assert make(make_model(), tmp_path / "new" / "folder").missing([Items(["more"], "query"), QUERIES]) == []


def test_without_a_folder_nothing_is_written(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(model).embed([QUERIES])
    assert list(tmp_path.iterdir()) == []


def damaged_run(make_model, folder, damage):
    """Embeds four texts in two chunks, damages one file, and returns (its path, what a second run asks for)."""
    make(make_model(), folder).embed([Items(["a", "b", "c", "d"], "query")])
    first, _ = paths = sorted(folder.glob("*.npz"))
    assert len(paths) == 2
    first.write_bytes(damage(first.read_bytes()))
    model = make_model()
    found = make(model, folder)
    part = Items(["a", "b", "c", "d"], "query")
    found.embed([part])
    np.testing.assert_array_equal(found.get(part), model.vectors(part.items, "query"))
    return first, asked(model)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"not a zip at all",
        lambda content: content[:-2000] if len(content) > 2000 else content[:40],
    ],
    ids=["half", "one byte short", "empty", "another format", "head"],
)
def test_a_cut_chunk_is_set_aside_and_its_texts_are_embedded_again(make_model, tmp_path, small_chunks, damage):
    path, texts = damaged_run(make_model, tmp_path, damage)
    assert texts in (["a", "b"], ["c", "d"])
    assert path.with_suffix(".damaged").is_file() and path.is_file()
    assert len(list(tmp_path.iterdir())) == 3
    idle = make_model()
    assert make(idle, tmp_path).embed([Items(["a", "b", "c", "d"], "query")]) == 0


def test_a_damaged_chunk_is_told_of_with_its_file(make_model, tmp_path):
    model = make_model()
    Embeddings(model, lambda prompt: prompt, tmp_path).embed([Items(["a", "b"], "query")])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    said = []
    Embeddings(model, lambda prompt: prompt, tmp_path, said.append)
    assert len(said) == 1 and said[0].startswith(f"{path}: kept vectors are damaged")
    assert path.with_suffix(".damaged").name in said[0] and "embedded again" in said[0]


def test_vectors_that_are_not_those_of_their_digest_are_not_used(make_model, tmp_path):
    # The zip's own checksums fit: only the digest tells that these are other vectors.
    model, part = make_model(), Items(["a", "b"], "query")
    make(model, tmp_path).embed([part])
    (path,) = tmp_path.iterdir()
    with np.load(path) as found:
        arrays = dict(found)
    np.savez(path, **{**arrays, "vectors": arrays["vectors"][::-1]})
    again = make_model()
    found = make(again, tmp_path)
    assert found.embed([part]) == 2
    np.testing.assert_array_equal(found.get(part), again.vectors(part.items, "query"))


def test_a_flipped_bit_in_a_vector_is_found(make_model, tmp_path, small_chunks):
    needle = make_model().vector("a", "query").tobytes()

    def flip(content: bytes) -> bytes:
        at = content.find(needle)
        at = at if at >= 0 else content.find(make_model().vector("c", "query").tobytes())
        assert at > 0
        return content[: at + 5] + bytes([content[at + 5] ^ 1]) + content[at + 6 :]

    path, texts = damaged_run(make_model, tmp_path, flip)
    assert texts in (["a", "b"], ["c", "d"]) and path.with_suffix(".damaged").is_file()


@pytest.mark.slow
def test_whatever_byte_is_flipped_the_vectors_are_right_or_embedded_again(make_model, tmp_path):
    part, model = Items(["a", "b"], "query"), make_model()
    make(model, tmp_path).embed([part])
    (path,) = tmp_path.glob("*.npz")
    content, wanted, set_aside = path.read_bytes(), model.vectors(part.items, "query"), 0
    raised = set()
    for at in range(len(content)):
        mask = (1, 8, 255)[at % 3]
        path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
        try:
            found = make(model, tmp_path)
        except Exception as e:  # noqa: BLE001 - every kind is collected, to be named at once
            raised.add(f"{type(e).__name__}: {e}"[:80])
            continue
        if found.missing([part]):
            set_aside += 1
            path.with_suffix(".damaged").unlink()
        else:
            np.testing.assert_array_equal(found.get(part), wanted)
    assert not raised
    assert set_aside > len(content) // 3


def test_a_chunk_of_another_layout_is_set_aside(model, tmp_path):
    np.savez(tmp_path / "0.npz", other=np.zeros(3))
    np.savez(tmp_path / "1.npz", keys=np.array([{}], object), vectors=np.zeros((1, 2)), digest=np.zeros(16, np.uint8))
    found = make(model, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.damaged", "1.damaged"]
    assert found.embed([QUERIES]) == 3
    np.testing.assert_array_equal(found.get(QUERIES), model.vectors(QUERIES.items, "query"))


# failures


class Failing:
    """A model that gives the vectors of another until it meets a text, and then does `what`."""

    def __init__(self, model, text, what):
        self._model, self._text, self._what = model, text, what

    def __call__(self, items, **options):
        found = self._model(items, **options)
        return self._what(found) if self._text in [item.text for item in items] else found


def killed(_):
    raise KeyboardInterrupt


def test_a_killed_run_loses_its_last_chunk_only(model, make_model, tmp_path, small_chunks):
    part = Items(["a", "b", "c", "d", "e"], "query")
    with pytest.raises(KeyboardInterrupt):
        make(Failing(model, "c", killed), tmp_path).embed([part])
    assert len(list(tmp_path.glob("*.npz"))) == 1
    second = make_model()
    found = make(second, tmp_path)
    assert found.embed([part]) == 3 and asked(second) == ["c", "d", "e"]
    np.testing.assert_array_equal(found.get(part), second.vectors(part.items, "query"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_and_not_kept(model, tmp_path, small_chunks, bad):
    def spoil(found):
        found[0, 5] = bad
        return found

    part = Items(["a", "b", "c", "d"], "query")
    with pytest.raises(NumericError, match="1 of 2 embeddings are not finite") as caught:
        make(Failing(model, "c", spoil), tmp_path).embed([part])
    assert caught.value.exit_code == 70 and "\n" not in str(caught.value)
    assert len(list(tmp_path.iterdir())) == 1
    again = make(model, tmp_path)
    assert [p.items[row] for _, p, row in again.missing([part])] == ["c", "d"]


# several hosts


def test_all_hosts_embed_what_the_main_one_has_not_kept(model, make_model, tmp_path):
    make(model, tmp_path).embed([QUERIES])
    told = []
    main = Embeddings(make_model(), TEMPLATES.__getitem__, tmp_path, agree=lambda there: told.append(there) or there)
    missing = [item[0] for item in main.missing([QUERIES, CORPUS])]
    other = Embeddings(make_model(), TEMPLATES.__getitem__, agree=lambda there: told[0])
    assert [item[0] for item in other.missing([QUERIES, CORPUS])] == missing and len(missing) == 3
    assert other.embed([QUERIES, CORPUS]) == 3


def test_an_empty_text_is_asked_for_as_such(make_model):
    class Strict(type(make_model())):
        allowed: list = []

        def __call__(self, items, *, prompt, progress, allow_empty=False):
            self.allowed.append(allow_empty)
            assert allow_empty or all(item.text or item.title for item in items)
            return super().__call__(items, prompt=prompt, progress=progress)

    model = Strict(8)
    kept = Embeddings(model, lambda prompt: prompt)
    parts = [Items(["a", ""], "query"), Items(["b", ""], "document", ["", "a title"])]
    kept.embed(parts)
    assert sorted(model.allowed) == [False, True]
    np.testing.assert_array_equal(kept.get(parts[0])[1], model.vector("", "query"))
