"""Places in buckets that tests fill, and folders that they write and read."""

import pathlib

from embed import files
from embed.buckets import client
from embed.buckets.addresses import parse


def put(bucket: str, **contents: str) -> None:
    for name, content in contents.items():
        client.write(parse(f"{bucket}/{name.replace('__', '/')}"), content.encode())


def tree(folder: pathlib.Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def write(folder: pathlib.Path, **contents: str) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def step(folder: pathlib.Path, number: int, content: str = "values") -> None:
    write(folder / "checkpoints" / str(number), **{"model.json": "{}", "params__d__x": content})
    files.write_manifest(folder / "checkpoints" / str(number), trees={"params": {}})
