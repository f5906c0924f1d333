"""`embed prepare` by several processes and hosts, through seqio: killed twice, the caches are one process's to the byte."""

import importlib.util
import json
import shutil

import corruption
import pytest

RECORDS = 9000  # three parts


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory):
    """The tiny recipe on a file of many records."""
    folder = tmp_path_factory.mktemp("prepare") / "work"
    shutil.copytree(prepared, folder)
    path = folder / "first.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    many = [{**rows[i % len(rows)], "question": f"{rows[i % len(rows)]['question']} {i}"} for i in range(RECORDS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in many))
    return folder


def caches(folder) -> dict[str, bytes]:
    return {name: content for name, content in corruption.contents(folder).items() if "/." not in f"/{name}"}


def prepare(run_embed, folder, output, *more, **environment):
    return run_embed(folder, "prepare", "--gin_file=tiny.gin", f"--gin.CACHE_DIR='{output}'", *more, **environment)


@pytest.fixture(scope="module")
def one(folder, run_embed):
    """The caches by one process."""
    done = prepare(run_embed, folder, "one", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert "processes" not in done.stdout
    return caches(folder / "one")


@pytest.mark.slow
def test_two_processes_killed_twice_write_the_same_bytes(folder, one, run_embed):
    for part in (1, 2):
        for path in (folder / "two").glob(f".*.parts/part-00000{part}.*"):
            path.unlink()  # the other process may have come so far
        killed = prepare(run_embed, folder, "two", "--workers=2", EMBED_FAIL_AT=f"prepare.before_part_{part}")
        assert killed.returncode == 75 and "a process of the preparation was stopped (-9)" in killed.stderr
        assert len(killed.stderr.strip().splitlines()) == 1
        parts = sorted(p.name for p in (folder / "two").glob(".*.parts/*.json"))
        assert "part-000000.json" in parts and f"part-00000{part}.json" not in parts
    done = prepare(run_embed, folder, "two", "--workers=2")
    assert done.returncode == 0, done.stderr
    assert "preparing its cache, 2 processes" in done.stdout
    assert caches(folder / "two") == one
    assert not [p for p in (folder / "two").iterdir() if p.name.endswith((".parts", ".log"))]
    again = prepare(run_embed, folder, "two", "--workers=2")
    assert again.returncode == 0 and "preparing" not in again.stdout


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("flags", ["", "--direct_num_workers=2 --direct_running_mode=multi_processing"])
def test_a_beam_pipeline_writes_the_same_bytes(folder, one, run_embed, flags):
    pytest.importorskip("apache_beam")  # in an environment of its own
    done = prepare(run_embed, folder, f"beam{len(flags)}", "--workers=2", f"--beam=--runner=DirectRunner {flags}")
    assert done.returncode == 0, done.stderr
    assert caches(folder / f"beam{len(flags)}") == one


def test_without_beam_its_option_is_an_error_of_one_line(prepared, run_embed):
    if importlib.util.find_spec("apache_beam"):
        pytest.skip("Beam is installed")
    done = run_embed(prepared, "prepare", "--gin_file=tiny.gin", "--beam=")
    assert done.returncode == 78 and "--beam needs Apache Beam" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.long
@pytest.mark.slow
def test_two_hosts_write_the_same_bytes(folder, one, run_on_hosts):
    run_on_hosts(folder, 2, "prepare", "--gin_file=tiny.gin", "--gin.CACHE_DIR='hosts'", "--workers=1", "--distributed")
    assert caches(folder / "hosts") == one


@pytest.mark.long
@pytest.mark.slow
def test_a_bad_record_is_named_as_by_one_process(folder, run_embed):
    work = folder.parent / "bad"
    shutil.copytree(folder, work, ignore=shutil.ignore_patterns("one", "two", "hosts"))
    path = work / "first.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for number in (5000, 8500):
        lines[number] = "{}\n"
    path.write_text("".join(lines))
    errors = [prepare(run_embed, work, f"c{n}", f"--workers={n}") for n in (1, 2)]
    assert errors[0].returncode == errors[1].returncode == 65
    assert errors[0].stderr == errors[1].stderr and f"{path.name}:5001" in errors[0].stderr
