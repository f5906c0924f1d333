"""Texts with images in them: their tokens, what is cached and what a batch holds, and what does not fit together."""

import io

import numpy as np
import pytest
from PIL import Image as Picture
from tiny_models import word_tokenizer

from embed.data.draws import Draws
from embed.data.features import Context, Unit
from embed.data.image_features import image_id
from embed.data.interleaved import Interleaved, Slots, check_masks, encode_texts, without_masks
from embed.errors import DataError
from embed.text import content_id

WORDS = ["as", "an", "astronaut", "and", "in", "love", "task:", "begin", "end"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return word_tokenizer(tmp_path_factory.mktemp("words") / "tokenizer.json", WORDS)


def picture(level: int) -> bytes:
    file = io.BytesIO()
    Picture.fromarray(np.full((6, 6, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def tokens_of(tokenizer, text: str) -> list[int]:
    head, tail = tokenizer.affixes
    whole = tokenizer.encode_batch([text], 99)[0][0].tolist()
    return whole[len(head) : len(whole) - len(tail)]


def test_images_stand_where_the_text_says(tokenizer):
    head, tail = tokenizer.affixes
    texts = ["[MASK_1] and [MASK_0] in love", "[MASK_0]", "an astronaut", "as[MASK_0]as[MASK_0]"]
    rows, cut = encode_texts(tokenizer, texts, 20, Slots(2), ["here"] * 4)
    words = lambda text: tokens_of(tokenizer, text)  # noqa: E731
    assert [row.tolist() for row in rows] == [
        [*head, -2, *words("and"), -1, *words("in love"), *tail],
        [*head, -1, *tail],
        [*head, *words("an astronaut"), *tail],
        [*head, *words("as"), -1, *words("as"), -1, *tail],
    ]
    assert cut == [False] * 4 and rows[0].dtype == np.int32


def test_an_image_may_take_several_tokens_between_two_of_the_vocabulary(tokenizer):
    slots = Slots(2, 3, "begin", "end")
    (row,), _ = encode_texts(tokenizer, ["[MASK_1]as"], 20, slots, ["here"])
    begin, end = tokens_of(tokenizer, "begin"), tokens_of(tokenizer, "end")
    head, tail = tokenizer.affixes
    assert row.tolist() == [*head, *begin, -4, -5, -6, *end, *tokens_of(tokenizer, "as"), *tail]
    with pytest.raises(DataError, match="has no token 'nowhere', which stands beside images"):
        encode_texts(tokenizer, ["[MASK_0]"], 20, Slots(1, 1, "nowhere"), ["here"])


def test_text_is_cut_and_images_never(tokenizer):
    head, tail = tokenizer.affixes
    room = len(head) + len(tail)
    rows, cut = encode_texts(tokenizer, ["as an astronaut [MASK_0]", "as [MASK_0]"], room + 2, Slots(1), ["a", "b"])
    assert rows[0].tolist() == [*head, *tokens_of(tokenizer, "as"), -1, *tail] and cut == [True, False]
    left = type(tokenizer)(tokenizer.path, tokenizer.pad_token, "left")
    rows, _ = encode_texts(left, ["as an astronaut [MASK_0]"], room + 2, Slots(1), ["a"])
    assert rows[0].tolist() == [*head, *tokens_of(tokenizer, "astronaut"), -1, *tail]
    with pytest.raises(
        DataError, match="^b: the images alone take 3 tokens, and there is room for 2; raise the length"
    ):
        encode_texts(tokenizer, ["[MASK_0]"], room + 2, Slots(1, 3), ["b"])


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        ("[MASK_0] and [MASK_1]", 1, r"^f:1: names \[MASK_1\], and has 1 image, counted from 0; add the image"),
        ("[MASK_0]", 0, r"names \[MASK_0\], and has 0 images"),
        ("as an astronaut", 1, r"image 0 has no place in the text; write \[MASK_0\] where it belongs"),
        ("[MASK_1]", 2, r"image 0 has no place"),
        ("[MASK_0][MASK_1][MASK_2]", 3, "has 3 images, and the model reads at most 2; leave some out"),
    ],
)
def test_masks_and_images_must_fit(text, count, message):
    with pytest.raises(DataError, match=message):
        check_masks(text, count, "f:1", 2)


def test_masks_can_be_taken_out():
    assert (
        without_masks("[MASK_0] as an [MASK_1]") == "as an" and without_masks("[MASK_0]") == without_masks(None) == ""
    )


FEATURE = Interleaved("query", 12, "query", max_images=2, size=4)
RECORDS = [
    {"query": "[MASK_0] and [MASK_1]", "query_images": [picture(10), picture(200)]},
    {"query": "an astronaut", "query_images": []},
    {"query": "[MASK_0] and [MASK_0]", "query_images": [picture(10)]},
]


def cached(tokenizer, records=RECORDS):
    records = [{"location": f"f:{i + 1}", **record} for i, record in enumerate(records)]
    templates = [{"query": "task: {content}"}] * len(records)
    return FEATURE.encode(records, Context(tokenizer, templates))


def test_a_batch_has_the_images_in_their_order_and_black_where_there_is_none(tokenizer):
    examples = cached(tokenizer)
    kept = [{field.name: example[field.name] for field in FEATURE.fields} for example in examples]
    count = len(kept)
    draws = Draws(np.zeros(count, np.int64), np.arange(count), np.zeros(count, np.int64), 0)
    index = np.arange(count, dtype=np.int32)
    batch = FEATURE.collate(Unit(kept, draws, {"query": np.zeros(count, np.int64)}, {"query": index}))
    shapes = {name: (x.shape, x.dtype) for name, x in batch.items()}
    assert shapes == {name: (s, np.dtype(d)) for name, (s, d) in FEATURE.shapes(count, {"query": ()}).items()}
    levels = batch["query_images"][:, :, 0, 0, 0]
    assert levels.tolist() == [[10, 200], [0, 0], [10, 0]]
    text = FEATURE.readable(tokenizer, examples[0]["query"])
    assert text.index("[MASK_0]") < text.index("and") < text.index("[MASK_1]")
    assert "task:" in text
    assert "up to 2 images of 4 x 4 pixels" in FEATURE.title


def test_ids_are_equal_where_texts_and_images_are(tokenizer):
    more = [*RECORDS, {"query": "[MASK_0] and [MASK_1]", "query_images": [picture(10), picture(201)]}, RECORDS[0]]
    ids = [int(example["query_id"][0]) for example in cached(tokenizer, more)]
    assert len(set(ids)) == 4 and ids[0] == ids[4]
    assert ids[1] == content_id("an astronaut")  # as of a text feature
    assert int(image_id(picture(10))) not in ids


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"query": "[MASK_0]", "query_images": [b"<html>"]}, "f:1: image 0: no image that Pillow reads, 6 bytes"),
        ({"query": "as an", "query_images": [picture(1)]}, "f:1: image 0 has no place in the text"),
        ({"query": ["a", "b"], "query_images": []}, "f:1: query holds 2 texts, expected one with images"),
    ],
)
def test_what_cannot_be_cached_is_told(tokenizer, record, message):
    with pytest.raises(DataError, match=message):
        cached(tokenizer, [record])


def test_masks_of_a_prompt_count_too(tokenizer):
    record = {"query": "in love", "query_images": [picture(1)], "location": "f:1"}
    templates = [{"query": "[MASK_0] {content}"}]
    (example,) = FEATURE.encode([record], Context(tokenizer, templates))
    assert (example["query"] == -1).sum() == 1
    with pytest.raises(DataError, match=r"^f:1: names \[MASK_0\], and has 0 images"):
        FEATURE.encode([{**record, "query_images": []}], Context(tokenizer, templates))


def test_a_vocabulary_learns_the_pieces_between_images():
    record = {"query": "[MASK_0] as an [MASK_1]", "location": "f:1"}
    texts = FEATURE.vocabulary_texts(record, {"query": "task: {content}"}, 100)
    assert [text.strip() for text in texts] == ["task:", "as an"]
