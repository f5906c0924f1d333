"""What `embed curate` will ask: the inputs, read and checked, the work on each of them, and how much that is at most."""

import dataclasses
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from embed.buckets import copies
from embed.curation import captions, judging, prompt_templates, synthesis
from embed.curation.asking import Asker
from embed.errors import DataError, UsageError
from embed.sources.fields import map_fields
from embed.sources.input_texts import Text, read_texts
from embed.sources.lines import read_json_lines
from embed.text import clean

# WHAT -> its prompts, and the names that each is filled in with
FIELDS = {
    "queries": {n: synthesis.FIELDS[n] for n in ("query", "rate_query")},
    "texts": {n: synthesis.FIELDS[n] for n in ("people", "subjects", "labelled_text")},
    "captions": captions.FIELDS,
    "filter": judging.FIELDS,
    "pick": judging.FIELDS,
}


KEY_VARIABLE = "EMBED_API_KEY"
_IMAGE_TOKENS = 600  # of an image of 512 pixels, about


@dataclasses.dataclass
class Options:
    """What is asked of which model. `what` is queries, texts, captions, filter or pick; an option that is None is not given.

    `endpoint` is a base URL such as http://localhost:8000/v1, and `key_variable` names the environment variable with the key.
    queries takes `input` (a file of texts), `sample` (that many of them, drawn) and `least` (rating, 1 to 5; 4). texts takes
    `labels` (separated by commas), `kind` and `count` (100). captions takes `input` (jsonl of records with the path of an image
    in `image_field`, and maybe a text of the web in `caption_field`) and `sample`. filter takes `input` (jsonl of pairs) and
    `least` (grade, 0 to 3; 2). A target is judged below its title, the field `title_field`, where there is one. pick takes
    `input`, `keep` (1) and `likelihood`. `max_requests` and `max_tokens` are budgets over all runs, `price` is of a million tokens
    in and out, times are in seconds.
    """

    what: str
    output: Any
    endpoint: str | None = None
    model: str | None = None
    key_variable: str = KEY_VARIABLE
    input: Any = None
    sample: int | None = None
    least: int | None = None
    labels: str | None = None
    kind: str | None = None
    count: int | None = None
    keep: int | None = None
    likelihood: bool | None = None
    image_field: str | None = None
    caption_field: str | None = None
    query_field: str = "query"
    target_field: str = "positive"
    title_field: str | None = None
    negatives_field: str = "negative"
    prompts: Any = None
    seed: int = 0
    max_requests: int | None = None
    max_tokens: int | None = None
    price: Sequence[float] | None = None
    concurrency: int = 8
    attempts: int = 8
    first_wait: float = 1.0
    deadline: float = 120.0
    plain: bool = False


@dataclasses.dataclass
class Plan:
    """What is to be asked: `work` on each of `items`; `requests`, `tokens_in` and `tokens_out` are how much that is at most."""

    work: Callable
    items: Sequence
    unit: str
    requests: int
    tokens_in: int
    tokens_out: int


def read_prompts(given: Options) -> dict[str, prompt_templates.PromptTemplate]:
    """Returns the prompts that the job needs, those of --prompts first."""
    folder = None if given.prompts is None else pathlib.Path(given.prompts)
    if folder is not None:
        prompt_templates.check(folder)
    more = judging.LIKELIHOOD_FIELDS if given.what == "pick" and given.likelihood else {}
    return {
        name: prompt_templates.read(name, folder, fields) for name, fields in {**FIELDS[given.what], **more}.items()
    }


def read_labels(given: Options) -> list[str]:
    """Returns the labels of `curate texts`."""
    labels = [label.strip() for label in (given.labels or "").split(",") if label.strip()]
    if len(labels) < 2 or not given.kind:
        raise UsageError("curate texts needs --labels=A,B,... (two at least) and --kind='product reviews'")
    if len(set(labels)) < len(labels):
        twice = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise UsageError(f"--labels: names {twice!r} twice; give each label once")
    return labels


def read_passages(given: Options) -> list[Text]:
    """Returns the passages that queries are written for."""
    passages = list(read_texts(given.input, title_field="title", titles_may_lack=True))
    return _sampled(given, passages, "passages")


def _sampled(given: Options, inputs: list[Any], unit: str) -> list[Any]:
    """Returns `sample` of the inputs in their order, all without it."""
    if given.sample is None:
        return inputs
    if given.sample > len(inputs):
        raise UsageError(f"--sample={given.sample}: {given.input} has {len(inputs):,} {unit}; leave out --sample")
    chosen = random.Random(given.seed).sample(range(len(inputs)), given.sample)
    return [inputs[i] for i in sorted(chosen)]


def read_images(given: Options) -> list[captions.Captioned]:
    """Returns the images that captions are written for. One whose file is not there is a DataError with its line."""
    folder, records = copies.folder_of(given.input), []
    for location, raw in read_json_lines(given.input):
        name, alt = raw.get(given.image_field), raw.get(given.caption_field)
        if not isinstance(name, str) or not name:
            raise DataError(
                f"{location}: field {given.image_field!r} is {type(name).__name__}, expected the path of an image; name the field "
                "with --image_field"
            )
        if not (folder / name).is_file():
            raise DataError(f"{location}: {folder / name}: no such file; paths start at the folder of {given.input}")
        if alt is not None and not isinstance(alt, str):
            raise DataError(
                f"{location}: field {given.caption_field!r} is {type(alt).__name__}, expected a text or none"
            )
        records.append(captions.Captioned(raw, location, folder / name, clean(alt or "")))
    return _sampled(given, records, "images")


def read_pairs(given: Options) -> list[judging.Pair]:
    """Returns the pairs that are judged."""
    roles = {
        "query": given.query_field,
        "target": given.target_field,
        "negatives": given.negatives_field,
    }
    if given.title_field and given.title_field not in roles.values():  # or a title is the query itself
        roles["title"] = given.title_field
    pairs = []
    for location, raw in read_json_lines(given.input):
        record = map_fields(raw, roles, location, several=False)
        negatives = tuple(record["negatives"])
        pairs.append(judging.Pair(raw, record["query"], record["target"], negatives, record.get("title", "")))
    return pairs


def read_inputs(given: Options) -> list[Any]:
    """Returns what the job is about, checked: labels, passages, images or pairs."""
    inputs = {"texts": read_labels, "queries": read_passages, "captions": read_images}.get(given.what, read_pairs)(
        given
    )
    if not inputs:
        raise DataError(f"{given.input}: holds no record; give a file with some")
    return inputs


def plan_queries(
    given: Options, asker: Asker, prompts: dict[str, prompt_templates.PromptTemplate], passages: Sequence[Text]
) -> Plan:
    """Returns the plan for queries: one is written and one rated for each passage."""
    work = synthesis.Queries(asker, prompts, given.least, given.seed)
    size = sum(estimated_tokens(passage.text) for passage in passages)
    fixed = sum(estimated_tokens(prompt.system + prompt.user) for prompt in prompts.values())
    count = len(passages)
    return Plan(work, passages, "passages", 2 * count, 2 * size + count * fixed, 60 * count)


def plan_captions(
    given: Options,
    asker: Asker,
    prompts: dict[str, prompt_templates.PromptTemplate],
    images: Sequence[captions.Captioned],
) -> Plan:
    """Returns the plan for captions: one of each image."""
    work = captions.Captions(asker, prompts, given.image_field, pathlib.Path(given.output), given.seed)
    fixed = estimated_tokens(prompts["caption"].system + prompts["caption"].user) + _IMAGE_TOKENS
    size = sum(estimated_tokens(image.alt) for image in images)
    return Plan(work, images, "images", len(images), size + fixed * len(images), 60 * len(images))


def plan_lists(
    given: Options, asker: Asker, prompts: dict[str, prompt_templates.PromptTemplate], labels: Sequence[str]
) -> Plan:
    """Returns the plan for labelled texts up to the lists of people and subjects, whose entries the texts are drawn from."""
    work = synthesis.Labelled(asker, prompts, given.kind, labels, seed=given.seed)
    lists = [(name, number) for name in ("people", "subjects") for number in range(-(-given.count // 200))]
    fixed = estimated_tokens(prompts["labelled_text"].system + prompts["labelled_text"].user) + 60
    return Plan(work, lists, "texts", given.count + len(lists), fixed * given.count, 150 * given.count)


def plan_judged(
    given: Options, asker: Asker, prompts: dict[str, prompt_templates.PromptTemplate], pairs: Sequence[judging.Pair]
) -> Plan:
    """Returns the plan for judged pairs: a grade, and with --likelihood a likelihood, of each text."""
    judge = judging.Judge(asker, prompts, given.seed)
    if given.what == "filter":
        work = judging.Filter(judge, given.negatives_field, given.least)
    else:
        work = judging.Pick(judge, given.negatives_field, given.keep, likelihood=given.likelihood)
    per_pair = 1 if given.what == "filter" else 0
    requests = sum(per_pair + len(pair.negatives) for pair in pairs)
    size = sum(
        (per_pair + len(pair.negatives)) * estimated_tokens(pair.query)
        + per_pair * estimated_tokens(pair.passage)
        + sum(map(estimated_tokens, pair.negatives))
        for pair in pairs
    )
    fixed = sum(estimated_tokens(prompt.system + prompt.user) for prompt in prompts.values()) * requests
    times = len(prompts)  # a negative is graded, and its likelihood is asked for
    return Plan(work, pairs, "pairs", times * requests, times * size + fixed, 8 * requests)


def estimated_tokens(text: str) -> int:
    """Returns about how many tokens a text has."""
    return len(text) // 4 + 1
