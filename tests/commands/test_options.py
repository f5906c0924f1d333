"""What commands share: types of options with their ranges, gin files, lists of numbers."""

import argparse
import pathlib

import pytest

from embed import ranges
from embed.commands import options
from embed.errors import UsageError


def refused(kind, text) -> str:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", ["a", " a ", "a/b c", "-"])
def test_a_path_is_taken_as_it_was_given(text):
    assert options.path(text) == text


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_an_empty_path_is_refused(text):
    assert refused(options.path, text) == "an empty path; give a file or a folder"


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("count", "1", 1),
        ("count", str((1 << 53) - 1), (1 << 53) - 1),
        ("natural", "0", 0),
        ("positive", "1e-300", 1e-300),
        ("non_negative", "0", 0.0),
        ("share", "1", 1.0),
        ("share", "0", 0.0),
        ("finite", "-2.5e3", -2500.0),
    ],
)
def test_a_number_in_its_range_is_read(name, text, value):
    found = getattr(options, name)(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("count", "0", "0: expected an integer >= 1"),
        ("count", "-3", "-3: expected an integer >= 1"),
        ("count", str(1 << 53), f"{1 << 53}: expected an integer <= {(1 << 53) - 1}"),
        ("count", "1.0", "'1.0' is not an integer"),
        ("natural", "-1", "-1: expected an integer >= 0"),
        ("natural", "", "'' is not an integer"),
        ("positive", "0", "0: expected a number > 0"),
        ("positive", "one", "'one' is not a number"),
        ("non_negative", "-0.1", "-0.1: expected a number >= 0"),
        ("share", "1.01", "1.01: expected a number <= 1"),
        ("share", "nan", "nan: expected a finite number"),
        ("finite", "inf", "inf: expected a finite number"),
        ("finite", "1,5", "'1,5' is not a number"),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_the_range(name, text, message):
    assert refused(getattr(options, name), text) == message


def test_an_option_tells_the_type_that_it_has():
    assert options.count.hint is ranges.Count and options.of(float).hint is float


# gin files


def parse(*words, epilog=None):
    parser = argparse.ArgumentParser(epilog=epilog)
    options.add_gin_arguments(parser)
    return parser, parser.parse_args(words)


def test_gin_files_are_collected_in_their_order():
    assert parse()[1].gin_file == [] and parse()[1].gin_bindings == ()
    assert parse("--gin_file=a", "--gin_file", "b c")[1].gin_file == ["a", "b c"]
    assert parse()[1].gin_file == [], "those of one command line are not kept for the next"


def test_bindings_are_explained_above_what_a_command_says():
    assert parse()[0].epilog == "--gin.NAME=VALUE overrides a binding of the gin files, e.g. --gin.TRAIN_STEPS=200."
    assert parse(epilog="Own words.")[0].epilog.endswith("--gin.TRAIN_STEPS=200.\n\nOwn words.")


# lists of numbers


@pytest.mark.parametrize(
    "text, kind, wanted",
    [
        (None, float, None),
        ("", float, None),
        ("1", float, [1.0]),
        ("0.5,1e3, 2", float, [0.5, 1000.0, 2.0]),
        ("384,128", int, [384, 128]),
    ],
)
def test_numbers_are_separated_by_commas(text, kind, wanted):
    found = options.numbers("dims", text, kind)
    assert found == wanted and (wanted is None or {type(n) for n in found} == {kind})


@pytest.mark.parametrize("text, kind", [("1,", float), (",", int), ("1;2", float), ("1.5", int), ("a", int)])
def test_what_are_no_numbers_is_refused_with_the_option(text, kind):
    with pytest.raises(UsageError) as caught:
        options.numbers("dims", text, kind)
    assert str(caught.value) == f"--dims={text}: not numbers separated by commas"


def test_the_log_stands_beside_the_output():
    assert options.log_beside_output(argparse.Namespace(output="a/b")) == pathlib.Path("a/b/output.log")
