"""Texts to continue and texts to restore: what is cached, what a batch has, and what is refused."""

import dataclasses

import numpy as np
import pytest

from embed.data.denoisers import Denoiser
from embed.data.draws import Draws
from embed.data.features import Context, Unit
from embed.data.language_features import Continuation, Denoised, affixes
from embed.errors import ConfigError, DataError
from embed.types import Method

BOS, EOS, PAD, FIRST_SENTINEL = 1, 2, 0, 1000
DENOISERS = (Denoiser(0.15, 3), Denoiser(0.5, 8), Denoiser(0.75, prefix=True, weight=2.0))


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A tokenizer of numbers in a text, between BOS and EOS, with `sentinels` tokens '<s0>', '<s1>', ..."""

    sentinels: int = 400
    before: tuple = (BOS,)
    after: tuple = (EOS,)
    path: str = "numbers"
    pad_id: int = PAD

    @property
    def affixes(self):
        return list(self.before), list(self.after)

    def token_id(self, token):
        number = int(token.removeprefix("<s").removesuffix(">"))
        return FIRST_SENTINEL + number if number < self.sentinels else None

    def encode_batch(self, texts, max_length):
        return [np.array([*self.before, *map(int, t.split()), *self.after], np.int32) for t in texts], [False] * len(
            texts
        )

    def decode(self, ids):
        return " ".join(str(i) for i in ids if i not in (BOS, EOS, PAD))


def text(length, seed=0):
    return np.random.default_rng(seed).integers(10, 1000, length)


def cached(feature, texts, tokenizer=None):
    records = [{"location": f"f:{i}", "text": " ".join(map(str, x))} for i, x in enumerate(texts)]
    return feature.encode(records, Context(tokenizer or Numbers(), [{}] * len(records)))


def unit(examples, epoch=0, seed=0, tokenizer=None, start=0):
    count = len(examples)
    draws = Draws(np.zeros(count, np.int64), np.arange(start, start + count), np.full(count, epoch), seed)
    return Unit(examples, draws, {}, {}, tokenizer or Numbers())


def denoised(**options):
    return Denoised(**{"denoisers": DENOISERS, "length": 66, "sentinel": "<s{}>", **options})


def restored(inputs, targets):
    """Returns the text of one row of inputs and of targets, without their special tokens."""
    inputs, targets = [[t for t in x.tolist() if t not in (BOS, EOS, PAD)] for x in (inputs, targets)]
    if not any(t >= FIRST_SENTINEL for t in inputs):
        return inputs + targets
    spans = {}
    for token in targets:
        if token >= FIRST_SENTINEL:
            current = spans[token] = []
        else:
            current.append(token)
    return [t for token in inputs for t in spans.get(token, [token])]


def test_texts_are_cached_whole_without_special_tokens():
    texts = [text(5), text(500)]
    for feature in (Continuation(length=66), denoised()):
        assert [e["text"].tolist() for e in cached(feature, texts)] == [x.tolist() for x in texts]


def test_a_row_to_continue_is_a_window_between_the_special_tokens():
    feature, texts = Continuation(length=16), [text(5), text(100, 1)]
    arrays = feature.collate(unit(cached(feature, texts)))
    assert arrays["text_tokens"][0].tolist() == [BOS, *texts[0], EOS] + [PAD] * 9
    assert arrays["text_mask"].sum(1).tolist() == [7, 16]
    window = arrays["text_tokens"][1][1:-1].tolist()
    assert any(texts[1][i : i + 14].tolist() == window for i in range(87))
    assert feature.token_counts(arrays) == (23, 32)


def test_inputs_and_targets_rebuild_every_text():
    feature = denoised()
    texts = [text(int(n), i) for i, n in enumerate(np.random.default_rng(3).integers(20, 65, 200))]
    for epoch in (0, 1):
        arrays = feature.collate(unit(cached(feature, texts), epoch))
        for i, x in enumerate(texts):
            inputs, targets = arrays["text_inputs"][i], arrays["text_targets"][i]
            assert restored(inputs, targets) == x.tolist()
            real = targets[arrays["text_targets_mask"][i]]
            assert (real[0], real[-1]) == (BOS, EOS) and (inputs[0], inputs[arrays["text_inputs_mask"][i]][-1]) == (
                BOS,
                EOS,
            )
        specs = feature.shapes(len(texts), {})
        assert {n: (x.shape, x.dtype) for n, x in arrays.items()} == {
            n: (s, np.dtype(d)) for n, (s, d) in specs.items()
        }


def test_what_is_drawn_follows_from_seed_record_and_epoch_alone():
    feature = denoised(denoisers=(Denoiser(0.5, 3),))
    examples = cached(feature, [text(60, i) for i in range(8)])
    whole = feature.collate(unit(examples))["text_inputs"]
    parts = [feature.collate(unit(examples[i : i + 2], start=i))["text_inputs"] for i in range(0, 8, 2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    for other in ({"epoch": 1}, {"seed": 1}):
        assert (whole != feature.collate(unit(examples, **other))["text_inputs"]).any(1).all()


def test_denoisers_are_drawn_by_their_weights():
    feature = denoised()
    arrays = feature.collate(unit(cached(feature, [text(60, i) for i in range(2000)])))
    has_sentinel = (arrays["text_inputs"] >= FIRST_SENTINEL).any(1)
    assert 1 - has_sentinel.mean() == pytest.approx(0.5, abs=0.03)


def test_a_longer_text_gives_another_window_in_every_epoch():
    feature = denoised(denoisers=(Denoiser(0.25, prefix=True),))
    examples = cached(feature, [text(1000)])
    starts = {int(feature.collate(unit(examples, epoch))["text_inputs"][0, 1]) for epoch in range(20)}
    assert len(starts) > 15


def test_flops_are_those_of_the_average_text():
    methods = {"decode": Method((), lambda length, decoder_length=0: 100 * length + decoder_length)}

    class Cache:
        def __len__(self):
            return 2

        def read(self, indices):
            return [{"text": np.zeros(n)} for n in (32, 1000)]

    assert Continuation(length=66).flops(methods, Cache()) == 100 * (48 + 2)
    assert Continuation(length=66).flops(methods) == 100 * 66
    feature = denoised(denoisers=(Denoiser(0.25, prefix=True), Denoiser(0.5, 8, weight=3.0)))
    assert feature.flops(methods, Cache()) == pytest.approx((100 * 38 + 14 + 3 * (100 * (24 + 3 + 2) + 24 + 3 + 2)) / 4)


def test_a_tokenizer_without_special_tokens_begins_and_ends_targets_with_padding():
    feature, tokenizer = denoised(), Numbers(before=(), after=())
    arrays = feature.collate(unit(cached(feature, [text(40)], tokenizer), tokenizer=tokenizer))
    real = arrays["text_targets"][0][arrays["text_targets_mask"][0]]
    assert (real[0], real[-1]) == (PAD, PAD) and arrays["text_inputs"][0, 0] >= 10


def test_what_a_person_reads_of_an_example():
    feature = denoised(denoisers=(Denoiser(0.25, prefix=True),))
    examples = cached(feature, [np.arange(10, 50)])
    assert feature.preview(unit(examples)) == [
        f"{' '.join(map(str, range(10, 40)))[:40]} ...  ->  {' '.join(map(str, range(40, 50)))}"
    ]
    assert Continuation(length=66).preview(unit(examples)) == [" ".join(map(str, range(10, 50)))]
    assert "inputs of up to" in feature.title and "continued" in Continuation().title


class TaskCache:
    """A task's cache of texts of these lengths."""

    name = "news"

    def __init__(self, *lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def read(self, indices):
        return [{"text": np.zeros(self.lengths[i])} for i in indices]


def test_texts_shorter_than_a_span_are_refused_when_a_run_starts():
    feature = denoised(denoisers=(Denoiser(0.15, 3), Denoiser(0.5, 8)))
    feature.check(TaskCache(20, 64, 1000))
    with pytest.raises(
        DataError,
        match=r"task 'news': 2 of 3 texts are shorter than one span of the denoiser \(mean_span 3, rate 0.15\), which needs 20 "
        r"tokens \(the shortest has 16\); join short texts",
    ):
        feature.check(TaskCache(16, 64, 19))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"denoisers": ()}, "Denoised.denoisers is empty; name at least one"),
        ({"denoisers": (Denoiser(0.15, 64),)}, "needs texts of 427 tokens and 2 special ones; raise the length"),
        ({"length": 2}, "leaves no room beside 2 special tokens; raise it"),
        ({"sentinel": "<s>"}, "has no {}, the place of the number; write one"),
    ],
)
def test_features_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        denoised(**options)


def test_a_vocabulary_without_enough_sentinels_is_refused():
    feature = denoised()
    assert feature.max_spans == 4
    cached(feature, [text(40)], Numbers(sentinels=4))
    with pytest.raises(DataError, match="numbers: has 3 of the 4 sentinels '<s{}>' that texts of 66 tokens need"):
        cached(feature, [text(40)], Numbers(sentinels=3))


def test_more_special_tokens_than_there_is_room_for_are_refused():
    with pytest.raises(
        DataError, match="puts 2 special tokens before a text and 1 after it; language modelling has room for one"
    ):
        affixes(Numbers(before=(5, 6)))


def test_a_text_without_tokens_is_refused():
    with pytest.raises(DataError, match="f:0: text has no tokens; take the record out"):
        cached(Continuation(), [[]])
