"""What a recipe builds from its fields, and fields that do not go together."""

import dataclasses

import pytest
from tiny_models import small_module
from training_batches import bag_of_words

from embed import sources
from embed.data.denoisers import Denoiser
from embed.data.features import Labels, Scores, Vectors
from embed.data.language_features import Denoised
from embed.data.tasks import Mixture, Task
from embed.data.teacher_scores import TeacherScores
from embed.data.text_features import Lengths, Text, Texts, pairs
from embed.errors import ConfigError, DataError
from embed.losses.contrastive import Contrastive
from embed.losses.distillation import EmbeddingDistillation, MarginMSE
from embed.losses.matryoshka import Matryoshka
from embed.losses.scores import CoSENT
from embed.losses.total import Total
from embed.models.lora import Lora
from embed.objectives.adapters import Adapters
from embed.objectives.language_model import SequenceToSequence
from embed.objectives.moving_average import MovingAverage
from embed.objectives.pairs import Pairs
from embed.training.loop import Schedule


def names(recipe) -> list[str]:
    return [feature.name for feature in recipe.record_features]


@dataclasses.dataclass(frozen=True)
class Needy:
    """Stands for a loss that needs an array of somebody else's feature."""

    needs = ("weight",)


FREE = Mixture("m", [Task("t", object())])  # a source that declares no fields


# Features.


def test_without_features_those_of_pairs_are_taken(recipe_of):
    made = recipe_of(num_negatives=2, draw_negatives="first")
    assert made.record_features == tuple(pairs(Lengths(12, 16), 2, "first"))
    assert made.longest_text == 16 and recipe_of(lengths=Lengths(99, 16)).longest_text == 99


def test_scores_that_losses_ask_for_are_features_however_deep_the_loss_lies(recipe_of):
    assert names(recipe_of()) == ["query", "target", "negatives"]
    for objective in (Pairs(CoSENT()), Pairs(Matryoshka(CoSENT(), (8, 4)))):
        made = recipe_of(objective=objective, mixture=FREE)
        assert names(made) == ["query", "target", "negatives", "score"]
        assert made.record_features[-1] == Scores("score")

    @dataclasses.dataclass(frozen=True)
    class Several:
        losses: dict
        needs = ("scores",)

    made = recipe_of(objective=Several({"a": CoSENT(), "b": CoSENT()}), mixture=FREE, num_negatives=1)
    assert made.record_features[-2:] == (Scores("scores", each="negatives"), Scores("score"))


def test_the_teachers_vectors_that_losses_ask_for_are_features(recipe_of):
    objective = Pairs(Total({"contrastive": Contrastive(), "distillation": EmbeddingDistillation()}))
    made = recipe_of(objective=objective, mixture=FREE, num_negatives=2, teacher_vectors="vectors")
    assert names(made)[3:] == ["teacher_query", "teacher_target", "teacher_negatives"]
    assert made.record_features[-1] == Vectors("teacher_negatives", "negatives", "vectors/target")
    queries = Pairs(EmbeddingDistillation(towers=("query",)))
    assert names(recipe_of(objective=queries, teacher_vectors="vectors"))[3:] == ["teacher_query"]


def test_the_scores_of_candidates_stand_in_the_records_or_in_files(recipe_of):
    given = {"objective": Pairs(Total({"a": Contrastive(), "b": MarginMSE()})), "mixture": FREE, "num_negatives": 2}
    assert recipe_of(**given).record_features[-1] == Scores("scores", each="negatives")
    made = recipe_of(**given, teacher_scores="scores/*.jsonl")
    assert made.record_features[-1] == TeacherScores("scores", "scores/*.jsonl")


def test_features_may_come_in_lists(recipe_of):
    own = {"lengths": Lengths(), "mixture": FREE}
    made = recipe_of(features=[pairs(Lengths(5, 6)), Labels()], **own)
    assert names(made) == ["query", "target", "negatives", "label"] and made.longest_text == 6
    assert recipe_of(features=[Labels()], **own).longest_text == 1


# What does not go together.

TWO = [Text("query", 5), Text("query", 6)]
MORE = {"query": "query", "target": "target"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "Recipe.batch_size = 0"),
        ({"ema_decay": 1.0}, "Recipe.ema_decay = 1.0"),
        ({"draw_negatives": "last"}, "Recipe.draw_negatives = 'last'"),
        (
            {"schedule": Schedule(steps=5, patience=2)},
            "Schedule.patience = 2 counts evaluations that are no better; bind Recipe.best",
        ),
        (
            {"best_metric": "x"},
            "Recipe.best_metric needs Schedule.evaluate_every, and Recipe.suite or Recipe.validation_share",
        ),
        (
            {"best_metric": "x", "schedule": Schedule(steps=5, evaluate_every=1)},
            "Recipe.best_metric needs Schedule.evaluate_every, and Recipe.suite or Recipe.validation_share",
        ),
        (
            {"suite": "s.json"},
            "Schedule.evaluate_every has an effect together with Recipe.suite or",
        ),
        (
            {"validation_share": 0.5},
            "Schedule.evaluate_every has an effect together with Recipe.suite or",
        ),
        (
            {"schedule": Schedule(steps=5, evaluate_every=1)},
            "Schedule.evaluate_every has an effect together with Recipe.suite or",
        ),
        ({"text_normalization": "NFX"}, "NFX"),
        ({"features": TWO}, "Recipe.features: two are called 'query'; give each its own name"),
        (
            {"features": [Labels()], "lengths": Lengths(5, 6)},
            "Recipe.lengths has no effect with Recipe.features, which say it",
        ),
        (
            {"features": [Labels()], "lengths": Lengths(), "num_negatives": 1},
            "Recipe.num_negatives has no effect",
        ),
        (
            {"features": [Labels()], "lengths": Lengths(), "draw_negatives": "first"},
            "Recipe.draw_negatives has no effect with Recipe.features",
        ),
        ({"model": None}, "Recipe.model is not bound; bind it, or Recipe.init_from to a model that has one"),
        ({"tokenizer": None}, "Recipe.tokenizer is not bound; bind it, or Recipe.init_from to a model that has one"),
        (
            {"model_changes": {"encoder.dropout": 0.1}},
            "Recipe.model_changes goes with the model of init_from; bind the fields",
        ),
        (
            {"objective": Pairs(Matryoshka(Contrastive(hardness=5.0), (8, 4)))},
            "Contrastive.hardness = 5.0 weighs hard negatives, and Recipe.num_negatives = 0 uses none; set one of them",
        ),
        (
            {"objective": Pairs(EmbeddingDistillation())},
            "the objective learns from a teacher's vectors of 'query'; bind Recipe.teacher_vectors",
        ),
        (
            {"objective": Pairs(EmbeddingDistillation()), "teacher_vectors": "vectors"},
            "EmbeddingDistillation.towers names 'negatives', and Recipe.num_negatives = 0 uses none; set it",
        ),
        (
            {"teacher_vectors": "vectors"},
            "Recipe.teacher_vectors has no effect: no loss learns from a teacher's vectors",
        ),
        (
            {"teacher_vectors": "vectors", "features": [Labels()], "lengths": Lengths(), "mixture": FREE},
            "Recipe.teacher_vectors has no effect: Recipe.features say all that a batch holds",
        ),
        (
            {"objective": Pairs(MarginMSE())},
            "a loss compares the candidates of each query, its target and its hard negatives, and Recipe.num_negatives = 0 uses "
            "none; set it",
        ),
        (
            {"objective": Pairs(MarginMSE()), "features": [Labels()], "lengths": Lengths(), "mixture": FREE},
            "no feature of Recipe.features has several texts; add data.text_features.Texts",
        ),
        (
            {"teacher_scores": "scores.jsonl"},
            "Recipe.teacher_scores has no effect: no loss learns from a teacher's scores; leave it out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(recipe_of, fields, message):
    with pytest.raises(ConfigError) as caught:
        recipe_of(**fields)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_goes_together_is_taken(recipe_of):
    every = Schedule(steps=5, evaluate_every=1, patience=2)
    recipe_of(schedule=every, validation_share=0.1, best_metric="validation/loss")
    recipe_of(schedule=every, suite="s.json", best_metric="mean of the types")
    recipe_of(init_from="x", model=None, tokenizer=None, model_changes={"encoder.dropout": 0.1})
    recipe_of(objective=Pairs(Contrastive(hardness=5.0)), num_negatives=1)


def mixture_of(fields, **options) -> Mixture:
    return Mixture("m", [Task("t", sources.JsonLines("a.jsonl", fields, **options))])


def test_fields_of_a_source_that_no_feature_reads_are_refused(recipe_of):
    with pytest.raises(DataError, match="JsonLines.fields: unknown role 'scor'; did you mean 'score'"):
        recipe_of(objective=Pairs(CoSENT()), mixture=mixture_of({**MORE, "scor": "s"}))
    recipe_of(objective=Pairs(CoSENT()), mixture=mixture_of({**MORE, "score": "s"}))


def test_scores_may_lack_where_there_are_no_negatives_alone(recipe_of):
    given = {"objective": Pairs(MarginMSE()), "num_negatives": 1}
    scored = sources.JsonLines("a.jsonl", {**MORE, "negatives": "wrong", "scores": "scores"})
    plain, listed = (sources.JsonLines("b.jsonl", fields) for fields in (MORE, {**MORE, "negatives": "wrong"}))
    mixture = lambda other: Mixture("m", [Task("one", scored), Task("two", other)])  # noqa: E731
    recipe_of(**given, mixture=mixture(plain))
    with pytest.raises(ConfigError, match="task 'two' maps 'negatives' and no 'scores', .* bind Recipe.teacher_scores"):
        recipe_of(**given, mixture=mixture(listed))
    taught = {**given, "teacher_scores": "scores.jsonl"}
    recipe_of(**taught, mixture=Mixture("m", [Task("two", listed)]))
    with pytest.raises(DataError, match="unknown role 'scores'"):
        recipe_of(**taught, mixture=mixture(plain))


def test_negatives_that_are_read_and_not_used_are_refused_unless_they_are_optional(recipe_of):
    listed = {**MORE, "negatives": "wrong"}
    with pytest.raises(ConfigError) as caught:
        recipe_of(mixture=mixture_of(listed))
    assert str(caught.value) == (
        "task 't' maps 'negatives' to 'wrong', and Recipe.num_negatives = 0 uses none of them; set Recipe.num_negatives, or take "
        "'negatives' out of the source's fields"
    )
    recipe_of(mixture=mixture_of(listed), num_negatives=1)
    recipe_of(mixture=mixture_of(listed, optional=("negatives",)))
    own = {"lengths": Lengths(), "features": [Text("query", 5), Text("target", 5), Texts("negatives", 5, 0)]}
    with pytest.raises(
        ConfigError, match="Texts.count of 'negatives' = 0 uses none of them; set Texts.count of 'negatives'"
    ):
        recipe_of(mixture=mixture_of(listed), **own)


# The objective.


def test_the_objective_has_the_model_its_adapters_and_its_average(recipe_of):
    model = bag_of_words()
    plain = recipe_of().built_objective(model)
    assert plain == Pairs(Contrastive(), model)
    adapters = recipe_of(lora=Lora("kernel", rank=2)).built_objective(model)
    assert adapters == Adapters(plain, Lora("kernel", rank=2))
    assert recipe_of(ema_decay=0.5).built_objective(model) == MovingAverage(plain, 0.5)
    both = recipe_of(lora=Lora("kernel", rank=2), ema_decay=0.5).built_objective(model)
    assert both == MovingAverage(adapters, 0.5)


def test_a_decoder_that_is_not_trained_and_prompts_that_are_not_read_are_refused(recipe_of, tmp_path):
    module = small_module(64)
    with_decoder = module.clone(decoder=module.encoder.clone(causal=True))
    with pytest.raises(
        ConfigError, match="Embedder.decoder has no effect: Pairs does not train it; leave it out, or take"
    ):
        recipe_of(model=with_decoder)
    plain = {"model": with_decoder, "objective": SequenceToSequence(), "lengths": Lengths()}
    features = [Denoised([Denoiser(0.25, prefix=True)])]
    task = Task("one", sources.JsonLines(str(tmp_path / "one.jsonl"), {"text": "text"}))
    assert recipe_of(**plain, features=features, mixture=Mixture("m", [task])).longest_text == 512
    prompted = Mixture("m", [dataclasses.replace(task, query_prompt="classification")])
    with pytest.raises(
        ConfigError, match="task 'one': query_prompt = 'classification' has no effect: no feature reads texts in"
    ):
        recipe_of(**plain, features=features, mixture=prompted)
