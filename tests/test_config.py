"""Strict gin: everything gin would let pass is one line with file, line and remedy."""

import importlib
import sys

import pytest

from embed import config
from embed.errors import ConfigError, DataError
from embed.workflows.recipe import Recipe

MODULE = """
import dataclasses


@dataclasses.dataclass(frozen=True)
class Loss:
    temperature: float = 0.05
    dims: tuple[int, ...] = ()


def optimizer(rate: float = 0.1):
    return ("optimizer", rate)


def careful(size: int = 1):
    if size < 1:
        from embed.errors import DataError

        raise DataError(f"size = {size}; make it positive")
    return size


@dataclasses.dataclass(frozen=True)
class Recipe:
    loss: object
    steps: int
    name: str = "run"
    extra: object = None
"""
RECIPE = """from __gin__ import dynamic_registration
from configured import parts
STEPS = 5
parts.Recipe.loss = @parts.Loss()
parts.Recipe.steps = %STEPS
parts.Loss.temperature = 0.1
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A user's own module, found by the import line of a gin file."""
    folder = tmp_path_factory.mktemp("configured")
    (folder / "configured").mkdir()
    (folder / "configured" / "__init__.py").write_text("")
    (folder / "configured" / "parts.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("configured.parts")
    sys.path.remove(str(folder))


@pytest.fixture
def parts(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return module


def build(parts, text, *bindings):
    with open("recipe.gin", "w") as f:
        f.write(text)
    return config.build(parts.Recipe, ["recipe.gin"], bindings)[0]


def fails(parts, text, *bindings) -> str:
    with pytest.raises(ConfigError) as e:
        build(parts, text, *bindings)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_builds_what_the_file_says(parts):
    built = build(parts, RECIPE)
    assert (built.steps, built.loss.temperature, built.name) == (5, 0.1, "run")


def test_the_command_line_overrides_and_bare_words_are_strings(parts):
    built = build(parts, RECIPE, "STEPS=7", "parts.Recipe.name=hello", "parts.Loss.dims=(4, 2)")
    assert (built.steps, built.name, built.loss.dims) == (7, "hello", (4, 2))


def test_the_operative_config_lists_defaults_too(parts):
    with open("recipe.gin", "w") as f:
        f.write(RECIPE)
    _, given, operative = config.build(parts.Recipe, ["recipe.gin"])
    assert "parts.Loss.temperature = 0.1" in given
    assert "parts.Loss.dims = ()" in operative


def test_unknown_parameter(parts):
    message = fails(parts, RECIPE + "parts.Loss.temprature = 0.2\n")
    assert "recipe.gin:7" in message and "'temprature'" in message and "did you mean 'temperature'" in message


def test_unknown_object(parts):
    message = fails(parts, RECIPE + "parts.Los.temperature = 0.2\n")
    assert "recipe.gin:7" in message and "did you mean 'parts.Loss'" in message


def test_unknown_reference(parts):
    message = fails(parts, RECIPE.replace("@parts.Loss()", "@parts.Lss()"))
    assert "recipe.gin:4" in message and "did you mean 'parts.Loss'" in message


def test_unknown_macro(parts):
    message = fails(parts, RECIPE.replace("%STEPS", "%STEP"))
    assert "recipe.gin:5" in message or "recipe.gin:3" in message
    assert "STEP" in message


def test_unused_binding(parts):
    message = fails(parts, RECIPE + "parts.optimizer.rate = 0.2\n")
    assert "recipe.gin:7" in message and "never used" in message and "Recipe" in message


def test_unused_macro(parts):
    message = fails(parts, RECIPE + "STEPZ = 3\n")
    assert "recipe.gin:7" in message and "did you mean 'STEPS'" in message


def test_bound_twice_in_one_file(parts):
    message = fails(parts, RECIPE + "parts.Loss.temperature = 0.3\n")
    assert "recipe.gin:7" in message and "bound twice" in message and "recipe.gin:6" in message


def test_an_include_may_be_overridden(parts):
    with open("base.gin", "w") as f:
        f.write(RECIPE)
    text = RECIPE.split("STEPS")[0] + "include 'base.gin'\nparts.Loss.temperature = 0.3\n"
    assert build(parts, text).loss.temperature == 0.3


@pytest.mark.parametrize(
    "binding", ["parts.Recipe.steps=2.5", "STEPS='x'", "parts.Recipe.name=3", "parts.Loss.dims=(1, 'a')"]
)
def test_wrong_type(parts, binding):
    message = fails(parts, RECIPE, binding)
    assert "expected" in message and "--gin" in message


def test_an_int_is_a_float(parts):
    assert build(parts, RECIPE, "parts.Loss.temperature=1").loss.temperature == 1


def test_required_left_open(parts):
    message = fails(parts, RECIPE.replace("STEPS = 5", "STEPS = %gin.REQUIRED"))
    assert "recipe.gin:3" in message and "--gin.STEPS=VALUE" in message
    assert build(parts, RECIPE.replace("STEPS = 5", "STEPS = %gin.REQUIRED"), "STEPS=4").steps == 4


def test_parameter_of_the_target_not_bound(parts):
    kept = [line for line in RECIPE.splitlines(keepends=True) if "Loss" not in line]
    message = fails(parts, "".join(kept))
    assert "do not bind Recipe.loss" in message


def test_missing_file_and_missing_include(parts):
    with pytest.raises(ConfigError, match="no gin file 'nope.gin'"):
        config.build(parts.Recipe, ["nope.gin"])
    message = fails(parts, RECIPE + "include 'nope.gin'\n")
    assert "recipe.gin:7" in message


def test_syntax_error(parts):
    message = fails(parts, RECIPE + "parts.Loss.dims = (1,\n")
    assert "recipe.gin" in message


def test_the_first_line_is_needed(parts):
    message = fails(parts, RECIPE.replace("from __gin__ import dynamic_registration\n", ""))
    assert "recipe.gin:1" in message and "dynamic_registration" in message


def test_import_of_a_module_that_is_not_there(parts):
    message = fails(parts, RECIPE.replace("import parts\n", "import parts\nfrom nowhere import thing\n"))
    assert "recipe.gin:3" in message and "cannot import" in message


def test_an_include_of_itself_ends(parts):
    message = fails(parts, RECIPE + "include 'recipe.gin'\n")
    assert "nest deeper" in message or "bound twice" in message


def test_an_error_of_a_part_stays_as_it_is(parts):
    with pytest.raises(DataError, match=r"^size = 0; make it positive$"):
        build(parts, RECIPE, "parts.Recipe.extra=@parts.careful()", "parts.careful.size=0")


SCOPED = RECIPE.replace("@parts.Loss()", "@one/parts.Loss()").replace("parts.Loss.temp", "one/parts.Loss.temp")
SCOPED += "parts.Recipe.extra = @two/parts.Loss()\ntwo/parts.Loss.temperature = 0.2\n"


def test_a_binding_that_each_use_has_its_own_of_is_refused(parts):
    message = fails(parts, SCOPED, "parts.Loss.temperature=0.3")
    assert "parts.Loss.temperature has no effect, as each use has its own: one/parts.Loss.temperature, two/" in message
    assert "--gin.parts.Loss.temperature" in message
    # Where one use takes it, and where the scopes were bound later, it is not.
    assert build(
        parts, SCOPED.replace("two/parts.Loss.t", "two/parts.Loss.dims = (2,)\n# "), "parts.Loss.temperature=0.3"
    )
    built = build(parts, SCOPED.replace("STEPS = 5", "STEPS = 5\nparts.Loss.temperature = 0.3"))
    assert (built.loss.temperature, built.extra.temperature) == (0.1, 0.2)


def test_a_scope_is_told_from_one_whose_name_it_begins(parts):
    longer = SCOPED.replace("two/", "one_more/").replace("@one/parts.Loss()", "@one_more/parts.Loss()")
    message = fails(parts, longer)
    assert "one/parts.Loss.temperature is never used" in message


def test_a_binding_above_the_include_that_binds_it_anew_is_refused(parts):
    with open("base.gin", "w") as f:
        f.write(RECIPE)
    message = fails(parts, RECIPE.split("STEPS")[0] + "STEPS = 9\ninclude 'base.gin'\n")
    assert (
        "recipe.gin:3: STEPS is overridden at " in message and "base.gin:3, in a file that is included below" in message
    )


def test_what_is_bound_of_a_part_goes_with_it(parts):
    """A file cannot take back what an included one binds: another optimiser would leave that of the first without use."""
    with open("base.gin", "w") as f:
        f.write(RECIPE + "RATE = 0.5\nparts.Recipe.extra = @parts.optimizer()\nparts.optimizer.rate = %RATE\n")
    text = RECIPE.split("STEPS")[0] + "include 'base.gin'\nparts.Recipe.extra = @parts.careful()\n"
    assert build(parts, text).extra == 1
    assert "parts.optimizer.rate is never used" in fails(parts, text + "parts.optimizer.rate = 0.7\n")
    message = fails(parts, text, "RATE=0.7")
    assert "RATE has no effect: parts.optimizer.rate takes it, and is not used any more" in message


def test_a_recipe_may_take_another_optimiser(tmp_path):
    given = ["SOURCE='minilm'", "recipe.Recipe.optimizer=@optimizers.adafactor()"]
    files = ["recipes/finetune_sentence_transformer.gin"]
    with pytest.raises(ConfigError, match="LEARNING_RATE has no effect: optimizers.schedule.peak takes it"):
        config.build(
            Recipe, files, [*given, "optimizers.adafactor.learning_rate=0.1", "LEARNING_RATE=0.1", *_tables(tmp_path)]
        )
    built = config.build(Recipe, files, [*given, "optimizers.adafactor.learning_rate=0.1", *_tables(tmp_path)])[0]
    assert float(built.optimizer.learning_rate(0)) == pytest.approx(0.1)


def _tables(folder) -> list[str]:
    (folder / "pairs.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    return [f"PAIRS='{folder}/pairs.jsonl'"]
