"""Commands whose every path lies in a bucket: killed, gone on with on another machine, and to the bit what they are on a disk."""

import json
import pathlib
import re
import shutil
import uuid

import bucket_servers
import numpy as np
import pytest

from embed import arrays, trees
from embed.buckets import client, copy
from embed.buckets.addresses import parse

SOURCES = ("first", "second")


@pytest.fixture(scope="module", params=["gs", "s3"])
def service(request):
    with bucket_servers.served(request.param) as (environment, faults):
        yield request.param, environment, faults


@pytest.fixture
def bucket(service, monkeypatch, tmp_path, work, write_suite):
    """(address, environment, faults): a place in a bucket with the data of the tiny recipe and a suite."""
    scheme, environment, faults = service
    environment = {**environment, "EMBED_BUCKET_CACHE": str(tmp_path / "machine")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client._filesystem.cache_clear()
    address = f"{scheme}://{bucket_servers.BUCKET}/{uuid.uuid4().hex}"
    write_suite(work, [json.loads(line) for line in (work / "second.jsonl").read_text().splitlines()])
    for path in (
        *work.glob("*.jsonl"),
        *work.glob("*.gin"),
        work / "suite.json",
        work / "sts.tsv",
        *(work / "dev").iterdir(),
    ):
        client.upload(path, parse(f"{address}/{path.relative_to(work)}"))
    yield address, environment, faults
    faults.set(0)
    client._filesystem.cache_clear()


def recipe(place: str) -> list[str]:
    """The words that make the tiny recipe read and write below `place`."""
    paths = {f"{name}/sources.JsonLines.path": f"{place}/{name}.jsonl" for name in SOURCES}
    paths |= {"CACHE_DIR": f"{place}/caches", "tokenizers.SentencePiece.path": f"{place}/caches/vocabulary.model"}
    return [f"--gin_file={place}/tiny.gin", *(f"--gin.{name}='{path}'" for name, path in paths.items())]


def chain(run_embed, work: pathlib.Path, place: str, **environment) -> None:
    """Averages, scores, encodes and exports the run at `place`."""
    for words in (
        ("average", f"{place}/run", "--last=2", f"--output={place}/soup"),
        ("evaluate", f"{place}/soup", f"--suite={place}/suite.json", f"--output={place}/scores"),
        (
            "encode",
            f"{place}/soup",
            f"--input={place}/first.jsonl",
            "--text_field=question",
            "--format=npy",
            f"--output={place}/vectors",
        ),
        ("export", f"{place}/soup", f"{place}/exported"),
    ):
        done = run_embed(work, *words, **environment)
        assert done.returncode == 0, done.stderr
        assert environment == {} or "/machine" not in done.stdout, "addresses are shown, not the paths of copies"


def values(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return {path: np.asarray(x) for path, x in trees.flatten(arrays.load_numpy(folder)).items()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def fetched(address: str, folder: pathlib.Path) -> pathlib.Path:
    """Copies everything at an address with the client alone."""
    for name, entry in client.find(parse(address)).items():
        client.download(parse(f"{address}/{name}"), folder / name, entry)
    return folder


@pytest.mark.slow
def test_a_run_in_a_bucket_is_that_on_a_disk(bucket, work, tmp_path, run_embed):
    address, environment, faults = bucket
    done = run_embed(work, "train", *recipe(str(work)), f"--run_dir={work}/run")
    assert done.returncode == 0, done.stderr
    chain(run_embed, work, str(work))

    faults.set(0.01, seed=3)
    command = ("train", *recipe(address), f"--run_dir={address}/run")
    killed = run_embed(work, *command, EMBED_FAIL_AT="train.after_step_9", **environment)
    assert killed.returncode == -9
    shutil.rmtree(tmp_path / "machine")  # it goes on elsewhere
    again = run_embed(work, *command, **environment)
    assert again.returncode == 0, again.stderr
    assert (
        re.search(r"resuming at step [48] of 12", again.stdout)
        and f"done       {address}/run at step 12" in again.stdout
    )
    shutil.rmtree(tmp_path / "machine")  # on another the checkpoints come when they are averaged
    chain(run_embed, work, address, **environment)
    assert sum(faults.counts.values()) >= 3
    faults.set(0)

    there = fetched(address, tmp_path / "there")
    for name in ("run/checkpoints/12", "soup"):
        assert same(values(there / name), values(work / name))
    scores = [json.loads((place / "scores" / "results.json").read_text()) for place in (there, work)]
    assert scores[0]["models"]["soup"]["results"] == scores[1]["models"]["soup"]["results"]
    for name in ("vectors/part-00000.npy", "exported/model.safetensors", "exported/modules.json"):
        assert (there / name).read_bytes() == (work / name).read_bytes()
    assert "/machine" not in (there / "run" / "operative_config.gin").read_text()
    assert not list(there.rglob(copy.UPLOADING))


@pytest.mark.slow
def test_a_killed_upload_is_gone_on_with(bucket, work, tmp_path, run_embed):
    address, environment, _ = bucket
    command = ("train", *recipe(address), f"--run_dir={address}/run", "--gin.TRAIN_STEPS=4")
    killed = run_embed(work, *command, EMBED_FAIL_AT="buckets.after_upload_9", **environment)
    assert killed.returncode == -9
    left = client.find(parse(f"{address}/run"))
    assert any("/params/" in name for name in left) and not [name for name in left if name.endswith("MANIFEST.json")]
    shutil.rmtree(tmp_path / "machine")
    again = run_embed(work, *command, **environment)
    assert again.returncode == 0, again.stderr
    assert "starting at step 0" in again.stdout
    done = run_embed(work, "train", *recipe(str(work)), f"--run_dir={work}/run", "--gin.TRAIN_STEPS=4")
    assert done.returncode == 0, done.stderr
    there = fetched(f"{address}/run", tmp_path / "there")
    assert same(values(there / "checkpoints" / "4"), values(work / "run" / "checkpoints" / "4"))


@pytest.mark.slow
def test_a_run_in_a_bucket_has_one_writer(bucket, work, run_embed):
    address, environment, _ = bucket
    client.write(
        parse(f"{address}/run/.lease/000000001"),
        json.dumps({"holder": "x", "host": "h", "machine": "m", "process": 1, "beat": 0, "ended": True}).encode(),
    )
    command = ("train", *recipe(address), f"--run_dir={address}/run", "--gin.TRAIN_STEPS=2")
    assert run_embed(work, *command, **environment).returncode == 0
    assert "000000002" in client.find(parse(f"{address}/run/.lease"))


@pytest.mark.slow
def test_what_is_missing_is_named_by_its_address(bucket, work, run_embed):
    address, environment, _ = bucket
    done = run_embed(work, "average", f"{address}/none", f"--output={address}/soup", **environment)
    assert done.returncode == 65 and done.stderr.startswith(f"embed: {address}/none: ") and done.stderr.count("\n") == 1
    done = run_embed(work, "train", f"--gin_file={address}/tiny.gin", f"--gin.first/sources.JsonLines.path='{address}/x.jsonl'",
                     f"--run_dir={address}/run", **environment)  # fmt: skip
    assert done.returncode == 65 and f"{address}/x.jsonl: no such file" in done.stderr
    done = run_embed(work, "average", "gs://B/x", "--output=y", **environment)
    assert done.returncode == 64 and "gs://B/x: 'B' is no name of a bucket" in done.stderr


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_without_a_common_disk_give_the_bits_of_those_with_one(bucket, work, tmp_path, run_on_hosts, hosts):
    """That those with a common disk give the result of one is tested in training/test_processes.py."""
    address, environment, _ = bucket
    mesh = "--gin.sharding.MeshShape.fsdp=2"
    run_on_hosts(work, hosts, "train", *recipe(str(work)), f"--run_dir={work}/run", mesh, devices=4 // hosts)
    environment.pop("EMBED_BUCKET_CACHE")
    command = ("train", *recipe(address), f"--run_dir={address}/run", mesh)
    run_on_hosts(work, hosts, *command, devices=4 // hosts, **environment)
    last = parse(f"{address}/run/checkpoints/12")
    for name in sorted(client.find(last)):  # as if the run had been killed before
        client.remove(last._replace(path=f"{last.path}/{name}"))
    for host in range(hosts):
        shutil.rmtree(work / f"host-{host}")
    printed = run_on_hosts(work, hosts, *command, devices=4 // hosts, **environment)
    assert "resuming at step 8" in printed
    there = fetched(f"{address}/run", tmp_path / "there")
    assert same(values(there / "checkpoints" / "12"), values(work / "run" / "checkpoints" / "12"))
