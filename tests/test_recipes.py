"""Every shipped recipe builds, and its model passes through jax.eval_shape at full size."""

import ast
import dataclasses
import functools
import math
import pathlib
import re
import statistics

import jax
import pytest

from embed import config
from embed.documents import read_json
from embed.errors import ConfigError
from embed.losses.matryoshka import Matryoshka
from embed.models import api
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling
from embed.workflows.bench import Bench
from embed.workflows.claims import Claim
from embed.workflows.recipe import Recipe

GIN = pathlib.Path(__file__).resolve().parent.parent / "gin"
RECIPES = sorted([*(GIN / "recipes").rglob("*.gin"), *(GIN / "claims" / "recipes").glob("*.gin")])
CLAIMS = sorted((GIN / "claims").glob("*.gin"))
# What a user must give, per recipe.
SMALL = ["PAIRS='data/pairs/*.jsonl'", "VOCABULARY='words.model'", "CACHE_DIR='cache'", "ONLY=()", "PROMPTS={}"]
SCENES = ["PICTURES='pictures/*.jsonl'", "VOCABULARY='words.model'", "CACHE_DIR='cache'"]
LANGUAGE = SMALL[:3]
LABELS = [f"{name}='labels.jsonl'" for name in ("TOPICS", "QUESTIONS", "OPINIONS")]
REQUIRED = {
    "recipes/quickstart.gin": ["SOURCE='minilm'"],
    "recipes/finetune_sentence_transformer.gin": ["SOURCE='minilm'"],
    "recipes/gemini_embedding/prefinetune.gin": ["SOURCE='minilm'"],
    "recipes/gemini_embedding/finetune.gin": ["SOURCE='minilm'"],
    "recipes/embedding_gemma/prefinetune.gin": ["SOURCE='minilm'"],
    "recipes/embedding_gemma/finetune.gin": ["SOURCE='minilm'"],
    "recipes/gemini_embedding/small_prefinetune.gin": ["SOURCE='minilm'"],
    "recipes/gemini_embedding/small_finetune.gin": ["SOURCE='minilm'"],
    "recipes/gemini_embedding/small_tasks.gin": ["SOURCE='minilm'"],
    "recipes/gemini_embedding/small_languages.gin": ["SOURCE='minilm'"],
    "recipes/gemini_embedding/small_code.gin": ["SOURCE='minilm'"],
    "recipes/embedding_gemma/adapt.gin": ["SOURCE='minilm'"],
    "recipes/embedding_gemma/qat.gin": ["SOURCE='minilm'"],
    "recipes/embedding_gemma/small_qat.gin": [
        "PAIRS='data/pairs/*.jsonl'",
        "START='adapted'",
        "TEACHER_VECTORS='taught'",
    ],
    "recipes/embedding_gemma/distil.gin": ["SOURCE='minilm'", "TEACHER_VECTORS='taught'"],
    "recipes/embedding_gemma/small_prefinetune.gin": ["PAIRS='data/pairs/*.jsonl'", "START='adapted'"],
    "recipes/embedding_gemma/small_finetune.gin": ["PAIRS='data/pairs/*.jsonl'", "START='adapted'"],
    "recipes/embedding_gemma/small_distil.gin": [
        "PAIRS='data/pairs/*.jsonl'",
        "START='adapted'",
        "TEACHER_VECTORS='taught'",
    ],
    "recipes/embedding_gemma/small_causal.gin": ["PAIRS='data/pairs/*.jsonl'"],
    "recipes/embedding_gemma/small_adapt.gin": ["PAIRS='data/pairs/*.jsonl'", "START='causal'"],
    "recipes/tips/b14.gin": ["PICTURES='pictures/*.jsonl'", "VOCABULARY='words.model'"],
    "recipes/tips/g14_pod.gin": ["PICTURES='pictures/*.jsonl'", "VOCABULARY='words.model'"],
    "recipes/tips/distill.gin": ["PICTURES='pictures/*.jsonl'", "VOCABULARY='words.model'", "TEACHER='g14'"],
    "recipes/universal/specialist.gin": [
        "DOMAINS='data/pairs/*.jsonl'",
        "START='minilm'",
        "CLASSES='classes.txt'",
        "NUM_CLASSES=2",
    ],
    "recipes/universal/small_specialist.gin": [
        "DOMAINS='data/pairs/*.jsonl'",
        "CLASSES='classes.txt'",
        "NUM_CLASSES=2",
    ],
    "recipes/universal/small_universal.gin": ["DOMAINS='data/pairs/*.jsonl'", "TEACHERS=()"],
    "recipes/universal/small_udon.gin": [
        "DOMAINS='data/pairs/*.jsonl'",
        "CLASSES='classes.txt'",
        "CLASS_COUNTS=(1, 1)",
    ],
    "recipes/universal/universal.gin": ["DOMAINS='data/pairs/*.jsonl'", "START='minilm'", "TEACHERS=()"],
    "recipes/mmir/b14.gin": ["TABLES='data/pairs/*.jsonl'", "FOLDER='images'", "CONTACT='me'", "START='tips'"],
    "recipes/mmir/embeddinggemma2.gin": [
        "TABLES='data/pairs/*.jsonl'",
        "FOLDER='images'",
        "CONTACT='me'",
        "START='embeddinggemma2'",
    ],
    "recipes/universal/udon.gin": [
        "DOMAINS='data/pairs/*.jsonl'",
        "START='minilm'",
        "CLASSES='classes.txt'",
        "CLASS_COUNTS=(1, 1)",
    ],
    "recipes/tips/high_resolution.gin": ["PICTURES='pictures/*.jsonl'", "START='minilm'"],
    "claims/recipes/scenes.gin": SCENES,
    "claims/recipes/scenes_one_caption.gin": SCENES,
    "claims/recipes/small.gin": SMALL,
    "claims/recipes/student.gin": SMALL,
    "claims/recipes/taught_student.gin": [*SMALL, "TEACHER_VECTORS='taught'"],
    "claims/recipes/small_finetune.gin": [*SMALL, "START='minilm'"],
    "claims/recipes/small_quantized.gin": [*SMALL, "START='minilm'"],
    "claims/recipes/small_spread_out.gin": SMALL,
    "claims/recipes/causal.gin": LANGUAGE,
    "claims/recipes/denoising.gin": [*LANGUAGE, "START='causal'"],
    "claims/recipes/student_finetune.gin": [*SMALL, "START='student'"],
    "claims/recipes/student_finetune_taught.gin": [
        *SMALL,
        "START='student'",
        "TEACHER_VECTORS='taught'",
        "recipe.Recipe.num_negatives=1",
    ],
    "claims/recipes/student_finetune_taught_alone.gin": [
        *SMALL,
        "START='student'",
        "TEACHER_VECTORS='taught'",
        "recipe.Recipe.num_negatives=1",
    ],
    "claims/recipes/small_and_made.gin": [*SMALL, "START='minilm'", "MADE='labels.jsonl'"],
    "claims/recipes/labels.gin": ["START='minilm'", "CACHE_DIR='cache'", *LABELS],
}


@functools.cache
def claim_of(path: pathlib.Path) -> Claim:
    return config.build(Claim, [str(path)])[0]


@functools.cache
def size_and_dims(module) -> tuple[int, tuple[int, ...]]:
    """Returns the number of parameters of a model and its Matryoshka sizes; several recipes have the same model."""
    model = api.build(module)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)), model.matryoshka_dims


def _named(path) -> list[str]:
    """Returns the files that a mixture takes by name."""
    only = re.search(r"^ONLY = (\(.*\))", path.read_text(), re.M)
    return ast.literal_eval(only.group(1)) if only else []


def _dims(part) -> list[int]:
    """Returns the Matryoshka sizes of an objective's losses."""
    if isinstance(part, Matryoshka):
        return list(part.dims)
    inner = [getattr(part, field.name) for field in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
    parts = [one for x in inner for one in (x.values() if isinstance(x, dict) else [x])]
    return [dim for one in parts if dataclasses.is_dataclass(one) for dim in _dims(one)]


@pytest.fixture
def built(path, tmp_path, monkeypatch) -> Recipe:
    """The recipe of a gin file, in a folder with the data that it names."""
    (tmp_path / "data" / "pairs").mkdir(parents=True)
    for name in ("mine", *_named(path)):
        (tmp_path / "data" / "pairs" / f"{name}.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    (tmp_path / "classes.txt").write_text("a\nb\n")
    composed = tmp_path / "pictures" / "composed" / "train"
    composed.mkdir(parents=True)
    for kind in ("profession", "tone", "gender", "objects", "pair", "hair", "other", "name", "same"):
        (composed / f"{kind}.jsonl").write_text('{"text": "a", "images": [], "target": "a.png", "target_text": "a"}\n')
    monkeypatch.chdir(tmp_path)
    recipe, _, _ = config.build(Recipe, [str(path)], REQUIRED.get(str(path.relative_to(GIN)), []))
    return recipe


each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(GIN)))


@each_recipe
def test_recipe_builds(built):
    assert built.mixture.tasks
    assert built.model is not None or built.init_from == "minilm"


@pytest.mark.slow
@each_recipe
def test_a_model_has_the_sizes_of_its_losses(built):
    module = built.model
    if module is None:  # the model is that of `init_from`: here all-MiniLM-L6-v2's shape
        dims = built.model_changes.get("matryoshka_dims", _dims(built.objective))
        module = Embedder(Bert(), MeanPooling(), matryoshka_dims=(384, *dims))
    size, dims = size_and_dims(module)
    assert size > 0
    assert set(_dims(built.objective)) <= set(dims)


# (mean_span, rate, weight) of arXiv:2205.05131 table 1 and of T5Gemma 2; None for the end of a text.
DENOISERS = {
    "ul2": [(3, 0.15, 1), (8, 0.15, 1), (None, 0.25, 1), (3, 0.5, 1), (8, 0.5, 1), (64, 0.15, 1), (64, 0.5, 1)],
    "t5gemma2": [(3, 0.15, 1), (12, 0.5, 1), (32, 0.15, 1), (32, 0.5, 1), (None, 0.75, 4)],
}


@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers_are_those_of_the_published_tables(name, tmp_path):
    adapt = "recipes/embedding_gemma/small_adapt.gin"
    text = (GIN / adapt).read_text().replace("data/denoisers_t5gemma2.gin", f"data/denoisers_{name}.gin")
    (tmp_path / "adapt.gin").write_text(text)
    recipe = config.build(Recipe, [str(tmp_path / "adapt.gin")], [*REQUIRED[adapt], "LENGTH=512"])[0]
    denoisers = recipe.record_features[0].denoisers
    assert [(d.mean_span, d.rate, d.weight) for d in denoisers] == DENOISERS[name]
    assert all(d.prefix == (d.mean_span is None) for d in denoisers)


@pytest.mark.parametrize("name", REQUIRED)
def test_what_a_user_must_give_is_asked_for(name):
    with pytest.raises(ConfigError, match="|".join(given.partition("=")[0] for given in REQUIRED[name])):
        config.build(Recipe, [str(GIN / name)])


@pytest.mark.parametrize("path", CLAIMS, ids=lambda p: p.stem)
def test_claims_build_and_name_recipes_that_are_there(path):
    claim = claim_of(path)
    assert claim.untestable or all(comparison.better in claim.arms for comparison in claim.comparisons)
    bench = Bench(claim, pathlib.Path("nowhere"), {}, {}, path.stem)
    assert len(set(bench.keys.values())) == len(claim.arms)  # also reads the gin files and scripts that they name


@pytest.mark.parametrize("path", sorted(GIN.rglob("*.gin")), ids=lambda p: str(p.relative_to(GIN)))
def test_gin_files_are_short_and_explained(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 70
    assert lines[0].startswith("#"), "say on top what the file is for"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("embeddinggemma", 307_581_696), ("embeddinggemma2", 271_002_648)])
def test_the_model_files_of_released_models_have_their_parameter_counts(name, count, tmp_path):
    text = (GIN / "recipes" / "quickstart_from_nothing.gin").read_text()
    (tmp_path / "big.gin").write_text(text.replace("models/gemma_tiny.gin", f"models/{name}.gin"))
    recipe, _, _ = config.build(Recipe, [str(tmp_path / "big.gin")])
    size, dims = size_and_dims(recipe.model)
    assert size == count and dims == (768, 512, 256, 128)


@pytest.mark.parametrize("path", sorted((GIN / "claims" / "measured").glob("*.json")), ids=lambda p: p.stem)
def test_what_was_measured_is_of_a_claim_and_in_the_table(path):
    claim = claim_of(GIN / "claims" / f"{path.stem}.gin")
    record = read_json(path)
    table = (path.parent / "claims.md").read_text(encoding="utf-8")
    assert f"`{path.stem}`" in table and record["title"] == claim.title
    for arm, own in record["arms"].items():
        assert own["lines"] == list(claim.arms[arm]), "measured with other lines than the claim has now: run it anew"
        assert set(own["seeds"]) <= set(map(str, claim.seeds))


@pytest.mark.parametrize("path", sorted((GIN / "claims" / "measured").glob("*.json")), ids=lambda p: p.stem)
def test_claims_have_five_seeds_where_a_run_takes_two_minutes_or_less(path):
    claim = claim_of(GIN / "claims" / f"{path.stem}.gin")
    arms = read_json(path)["arms"].values()
    seconds = max(statistics.median(run["seconds"] for run in arm["seeds"].values()) for arm in arms)
    enough = 5 if seconds <= 120 else 3
    assert list(claim.seeds) == list(range(len(claim.seeds))) and len(claim.seeds) >= enough, (
        f"a run of its slowest arm took {seconds:.0f} s"
    )


def test_every_recipe_at_paper_scale_fits_the_slices_it_names():
    """By the TPU's own compiler: launch/compile_recipes.sh writes the table."""
    steps = read_json(GIN / "needs.json")["steps"]
    stages = [p for p in RECIPES if "TOPOLOGY" in p.read_text()]
    assert len(stages) >= 4
    for path in stages:
        named = re.search(r"^# TOPOLOGY +([^.\n]*?)[:.]? (?:batch|every|What)", path.read_text(), re.M).group(1)
        recipe = config.build(Recipe, [str(path)], REQUIRED.get(str(path.relative_to(GIN)), []))[0]
        as_it_is = api.layers_of(recipe.model)
        for topology in re.findall(r"v\w+:[\dx]+", named):
            own = [s for s in steps if s["recipe"] == f"{path.parent.name}/{path.stem}" and s["topology"] == topology]
            assert {s["name"] for s in own} == {"train", "evaluate", "encode"}, (path, topology)
            assert all(s["fits"] for s in own)
            layers = next(s["layers"] for s in own if s["name"] == "train")
            assert (layers["remat"], layers["unrolled"]) == as_it_is, f"{path} has changed: compile it again"
