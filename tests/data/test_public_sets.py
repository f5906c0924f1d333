"""The table of public sets: complete, written down as it is, and its TFDS sets read through the whole path."""

import pathlib

import pytest

from embed.data import public_sets, records, seqio_tasks
from embed.data.text_features import Lengths, pairs
from embed.data.tokenizers import SentencePiece, train_sentencepiece
from embed.errors import ConfigError
from embed.sources.datasets import Tfds
from embed.sources.derived import Entailments

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def test_every_set_has_what_a_user_must_know():
    names = [s.name for s in public_sets.SETS]
    assert len(set(names)) == len(names) > 60
    assert {s.kind for s in public_sets.SETS} == set(public_sets.KINDS)
    for one in public_sets.SETS:
        assert one.licence and one.negatives and one.page.startswith(("Hub ", "TFDS "))
        assert "{content}" in one.task.definition()["query_prompt"]
        one.task.source.fingerprint()
    wanted = {"natural_questions", "hotpotqa", "fever", "msmarco", "snli", "multi_nli", "miracl_sw", "medmcqa", "code_search_net",
              "c4_en", "mc4_de", "wikipedia_en"}  # fmt: skip
    assert wanted <= set(names)


def test_the_table_is_written_down_as_it_is():
    text = (ROOT / "gin" / "data" / "public_sets.md").read_text(encoding="utf-8")
    assert public_sets.table() in text, "run: python -m embed.data.public_sets > gin/data/public_sets.md"


def test_sets_are_chosen_by_kind_and_name():
    found = [t.name for t in public_sets.tasks(kinds=["code"], names=["medmcqa"], leave_out=[])]
    assert found == ["medmcqa", "code_search_net"]
    assert len(public_sets.tasks()) == len(public_sets.SETS)
    assert "msmarco" not in [t.name for t in public_sets.tasks(["task diversity"], leave_out=["msmarco"])]
    with pytest.raises(ConfigError, match="no kind 'cod'; did you mean 'code'"):
        public_sets.tasks(["cod"])
    with pytest.raises(ConfigError, match="no set 'nli'"):
        public_sets.tasks(names=["nli"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["snli", "multi_nli"])
def test_sets_of_tfds_are_read_with_its_own_features(name, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    (one,) = [s for s in public_sets.SETS if s.name == name]
    assert isinstance(one.source, Entailments) and isinstance(one.source.source, Tfds)
    path = tmp_path / "words.model"
    path.write_bytes(train_sentencepiece((f"premise {i} follows from hypothesis" for i in range(400)), 286))

    def rows(self, *given, **named):
        import tensorflow as tf

        texts = [
            ("A man sleeps", "A man rests", 0),
            ("A man sleeps", "A man runs", 2),
            ("A dog", "An animal", 0),
            ("", "", -1),
        ]
        columns = dict(zip(("premise", "hypothesis", "label"), map(list, zip(*texts))))
        extra = {n: ["x"] * 4 for n in self.info.features if n not in columns}
        assert set(columns) <= set(self.info.features)  # what we map is what the published set has
        return tf.data.Dataset.from_tensor_slices({**columns, **extra})

    with tfds.testing.mock_data(as_dataset_fn=rows):
        features = pairs(Lengths(16, 16))
        (packed,) = seqio_tasks.examples(one.task, SentencePiece(str(path)), features)
    example = records.unpack(packed, seqio_tasks.written_fields(features))
    assert len(example["negatives_lengths"]) == 1 and len(example["query"]) and len(example["target"])
