"""A teacher's vectors of what a recipe trains on: those of the model, joined by id, resumed, refused where they are of others."""

import json
import shutil

import numpy as np
import pytest

from embed.data import vector_store
from embed.data.image_features import Image
from embed.data.interleaved import Interleaved
from embed.data.tasks import Mixture
from embed.data.text_features import Lengths
from embed.errors import ConfigError, DataError, UsageError
from embed.inference.model import open_model
from embed.losses.contrastive import Contrastive
from embed.losses.distillation import EmbeddingDistillation
from embed.losses.total import Total
from embed.objectives.pairs import Pairs
from embed.text import content_id, target_id
from embed.workflows import encode_records

ROWS = [{"query": f"{a} {b}", "target": b, "negatives": [c, a]} for a, b, c in zip("abcdef", "klmnop", "uvwxyz")]
FIELDS = ("query", "target", "negatives")


@pytest.fixture
def recipe(recipe_of, task_of, without_seqio):
    """A recipe of six rows with hard negatives."""
    return recipe_of(mixture=Mixture("m", [task_of("taught", ROWS, FIELDS)]), num_negatives=2)


def content(folder) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_vectors_are_those_of_the_model_under_the_ids_of_the_texts(bundle, recipe, tmp_path):
    encode_records.run(bundle, recipe, tmp_path / "taught", shard_size=4)
    model, ids = open_model(bundle), np.array([content_id(row["query"]) for row in ROWS])
    stored = vector_store.read(tmp_path / "taught" / "query").of(ids, "query")
    np.testing.assert_allclose(stored, model.encode([row["query"] for row in ROWS], prompt="query"), atol=1e-6)
    targets = sorted({text for row in ROWS for text in (row["target"], *row["negatives"])})
    store = vector_store.read(tmp_path / "taught" / "target")
    stored = store.of(np.array([target_id(text) for text in targets]), "target")
    np.testing.assert_allclose(stored, model.encode(targets, prompt="document"), atol=1e-6)
    assert store.identity["model"] == model.digest and store.identity["prompts"] == [model.prompts["document"]]
    assert store.identity["source"] == model.digest and store.identity["side"] == "target"
    assert sorted(p.name for p in (tmp_path / "taught").iterdir()) == ["query", "target"]  # nothing of the work is left


@pytest.mark.slow
def test_a_finished_folder_is_left_alone_and_one_of_another_prompt_is_refused(bundle, recipe, tmp_path, capsys):
    output = tmp_path / "taught"
    encode_records.run(bundle, recipe, output)
    before = content(output)
    encode_records.run(bundle, recipe, output)
    assert content(output) == before and capsys.readouterr().out.count("nothing was written") == 2
    with pytest.raises(DataError, match="query: holds vectors of another model, prompt or length, or of other texts"):
        encode_records.run(bundle, recipe, output, query_prompt="own")
    assert content(output) == before
    shutil.rmtree(output / "target")  # as if it had been stopped between the two
    encode_records.run(bundle, recipe, output)
    assert content(output) == before


@pytest.mark.slow
def test_tasks_of_several_prompts_are_encoded_each_in_its_own(
    bundle, recipe_of, task_of, without_seqio, tmp_path, capsys
):
    shared = {"query": "d e", "target": "k", "negatives": ["y"]}
    tasks = [
        task_of("first", ROWS[:3], FIELDS),
        task_of("second", [*ROWS[3:], shared], FIELDS, query_prompt="clustering", target_prompt="own"),
    ]
    recipe = recipe_of(mixture=Mixture("m", tasks), num_negatives=2, prompts={"own": "student: {content}"})
    with pytest.raises(
        DataError, match=r"'own: .content.', and at .*first.jsonl:1, of task 'first'.*; .*give one prompt for all"
    ):
        encode_records.run(bundle, recipe, tmp_path / "taught")  # both have the target 'k', in two prompts
    assert not (tmp_path / "taught").exists()
    encode_records.run(bundle, recipe, tmp_path / "taught", target_prompt="own", shard_size=2)
    printed, model = capsys.readouterr().out, open_model(bundle)
    assert f"query   3 different texts, prompt {model.prompts['query']!r}" in printed
    assert f"query   4 different texts, prompt {model.prompts['clustering']!r}" in printed
    store = vector_store.read(tmp_path / "taught" / "query")
    for rows, prompt in ((ROWS[:3], "query"), ([*ROWS[3:], shared], "clustering")):
        texts = [row["query"] for row in rows]
        stored = store.of(np.array([content_id(text) for text in texts]), "query")
        np.testing.assert_allclose(stored, model.encode(texts, prompt=prompt), atol=1e-6)
    assert store.identity["prompts"] == sorted(model.prompts[name] for name in ("query", "clustering"))
    assert store.identity["tasks"] == {"first": model.prompts["query"], "second": model.prompts["clustering"]}
    target = vector_store.read(tmp_path / "taught" / "target").identity
    assert target["prompts"] == ["own: {content}"] and target["tasks"] == {}
    before = content(tmp_path / "taught")
    encode_records.run(bundle, recipe, tmp_path / "taught", target_prompt="own")
    assert content(tmp_path / "taught") == before


@pytest.mark.slow
def test_a_teacher_of_another_tool_is_converted_into_the_caches(bundle, recipe, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(encode_records.foreign, "bundle_of", lambda *given: asked.append(given) or bundle)
    encode_records.run("org/teacher", recipe, tmp_path / "taught")
    assert asked == [("org/teacher", recipe.cache_dir, "teacher")]
    assert vector_store.read(tmp_path / "taught" / "query").identity["model"] == open_model(bundle).digest


@pytest.mark.parametrize("name", ["notes.txt", "query/ids.npy"])
def test_a_folder_of_something_else_is_refused_before_anything_is_read(bundle, recipe, tmp_path, without_seqio, name):
    (tmp_path / "taught" / name).parent.mkdir(parents=True)
    (tmp_path / "taught" / name).write_text("mine")
    with pytest.raises(DataError, match="is no folder of a teacher's vectors; give another --output"):
        encode_records.run(bundle, recipe, tmp_path / "taught")
    assert not without_seqio and (tmp_path / "taught" / name).read_text() == "mine"


def test_a_prompt_that_the_model_does_not_have_is_refused_before_anything_is_read(
    bundle, recipe, tmp_path, without_seqio
):
    with pytest.raises((ConfigError, DataError), match="no prompt is called 'qery'"):
        encode_records.run(bundle, recipe, tmp_path / "taught", query_prompt="qery")
    assert not without_seqio and not (tmp_path / "taught").exists()


def test_a_student_that_learns_from_them_gets_the_vectors_of_its_texts(bundle, recipe_of, recipe, tmp_path):
    encode_records.run(bundle, recipe, tmp_path / "taught")
    objective = Pairs(Total({"contrastive": Contrastive(), "distillation": EmbeddingDistillation()}))
    student = recipe_of(
        mixture=recipe.mixture, num_negatives=2, objective=objective, teacher_vectors=str(tmp_path / "taught")
    )
    by_name = {feature.name: feature for feature in student.record_features}
    shapes = by_name["teacher_negatives"].shapes(3, {"negatives": (2,)})
    assert shapes["teacher_negatives"][0][:2] == (3, 2)
    assert by_name["teacher_query"].path.endswith("taught/query")
    assert by_name["teacher_negatives"].path == by_name["teacher_target"].path == str(tmp_path / "taught") + "/target"


@pytest.mark.slow
def test_it_is_trained_from_the_command_line(prepared, trained, tmp_path, run_embed):
    """The vectors are encoded, the student's loss falls, and without the vectors of some texts the run does not begin."""
    folder = shutil.copytree(trained, tmp_path / "work")
    lines = (
        (folder / "tiny.gin").read_text().replace("include 'runs/train.gin'", "include 'runs/base.gin'").splitlines()
    )
    kept = [x for x in lines if not x.startswith(("MATRYOSHKA_DIMS", "HARDNESS", "TEMPERATURE", "recipe.Recipe.ema"))]
    (folder / "student.gin").write_text(
        "\n".join(kept).replace(
            "from embed import sources\n",
            "from embed import sources\nfrom embed.losses import distillation\nfrom embed.objectives import pairs\n",
        )
        + "\nrecipe.Recipe.objective = @pairs.Pairs()\n"
        "pairs.Pairs.loss_fn = @distillation.EmbeddingDistillation()\n"
        "recipe.Recipe.teacher_vectors = 'taught'\n"
    )
    train = (
        "train",
        "--gin_file=student.gin",
        "--run_dir=student",
        "--gin.TRAIN_STEPS=4",
        "--gin.loop.Schedule.log_every=1",
    )
    done = run_embed(folder, *train)
    assert (
        done.returncode == 65 and "taught/query: no folder of vectors" in done.stderr and done.stderr.count("\n") == 1
    )
    done = run_embed(folder, "encode", "model", "--gin_file=student.gin", "--output=taught")
    assert done.returncode == 0, done.stderr
    done = run_embed(folder, *train)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(x) for x in (folder / "student" / "metrics.jsonl").read_text().splitlines()]
    assert {"query", "target", "negatives"} <= set(rows[0]) and all(np.isfinite(row["loss"]) for row in rows)
    # Another mixture has texts that were not encoded.
    (folder / "second.jsonl").write_text((folder / "second.jsonl").read_text().replace("red", "scarlet"))
    done = run_embed(folder, *train, "--gin.CACHE_DIR='other'", "--run_dir=other")
    assert done.returncode == 65 and "embed encode MODEL --gin_file" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.long
@pytest.mark.slow
def test_scores_in_files_train_a_mixture_of_tasks_with_and_without_negatives(prepared, tmp_path, run_embed):
    """From the command line: a missing score is one line; what tasks without negatives do not teach is said."""
    folder = shutil.copytree(prepared, tmp_path / "work")
    recipe = (folder / "tiny.gin").read_text().replace("include 'runs/train.gin'", "include 'runs/base.gin'")
    names = ("MATRYOSHKA_DIMS", "HARDNESS", "TEMPERATURE", "recipe.Recipe.ema")
    kept = "\n".join(line for line in recipe.splitlines() if not line.startswith(names))
    imports = "from embed import sources\nfrom embed.losses import contrastive\nfrom embed.losses import distillation\n"
    imports += "from embed.losses import total\nfrom embed.objectives import pairs\n"
    (folder / "scored.gin").write_text(
        kept.replace("from embed import sources\n", imports)
        + "\nrecipe.Recipe.objective = @pairs.Pairs()\npairs.Pairs.loss_fn = @total.Total()\n"
        "total.Total.losses = {'near': @contrastive.Contrastive(), 'margin': @distillation.MarginMSE(), "
        "'order': @distillation.CandidateKL()}\n"
        "recipe.Recipe.teacher_scores = 'scores/*.jsonl'\n"
    )
    scored = [
        {"query": row["question"], "text": text, "score": len(text) / 10}
        for name in ("first", "second")
        for row in map(json.loads, (folder / f"{name}.jsonl").read_text().splitlines())
        for text in dict.fromkeys([row["answer"], *row.get("wrong", ())])
    ]
    (folder / "scores").mkdir()
    write = lambda rows: (folder / "scores" / "all.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))  # noqa: E731
    train = (
        "train",
        "--gin_file=scored.gin",
        "--run_dir=scored",
        "--gin.TRAIN_STEPS=6",
        "--gin.loop.Schedule.log_every=1",
    )
    write(scored[1:])
    done = run_embed(folder, *train)
    assert done.returncode == 65 and "has no score for 1 of " in done.stderr and done.stderr.count("\n") == 1
    assert not (folder / "scored").exists()
    write(scored)
    done = run_embed(folder, *train)
    assert done.returncode == 0, done.stderr
    assert "batches of tasks without hard negatives, which are second" in done.stdout
    rows = [json.loads(x) for x in (folder / "scored" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "margin" in row]
    assert len(rows) == 6 and all(np.isfinite(row["loss"]) for row in rows)
    assert {row["margin"] == 0 for row in rows} == {True, False}, "batches of both tasks"


def test_texts_with_images_in_them_are_refused(bundle, recipe_of, tmp_path):
    features = [Interleaved("query", 16, "query", max_images=1, size=8), Image("target", size=8)]
    with pytest.raises(UsageError, match="the texts of 'query' have images in them, which are not encoded here yet"):
        encode_records.run(bundle, recipe_of(features=features, lengths=Lengths()), tmp_path / "taught")
    assert not (tmp_path / "taught").exists()
