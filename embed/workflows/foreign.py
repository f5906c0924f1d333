"""A model of another tool in the place of a MODEL: converted once into a folder of caches."""

import pathlib

from embed import bundles, console, documents, files, hosts


def bundle_of(name: str, cache_dir, role: str) -> pathlib.Path:
    """Returns the bundle or step folder that `name` stands for, after converting a foreign folder into `cache_dir`.

    `name` is a MODEL, a folder of Hugging Face or sentence-transformers, or a name of the Hub. `role`, what the model is for,
    stands in what is printed and in the name of the converted folder.
    """
    from embed.interop import convert, hub
    from embed.interop import source as sources
    from embed.towers import convert as image_convert
    from embed.towers import source as images

    path, cache_dir = pathlib.Path(name), pathlib.Path(cache_dir)
    if (path / "model.json").is_file() or (path / "checkpoints").is_dir():
        return bundles.resolve(path)
    is_foreign = any((path / f).is_file() for f in ("config.json", "modules.json")) or images.is_one(path)
    if path.exists() and not is_foreign:
        return bundles.resolve(path)  # raises, saying what a MODEL is
    fetched = hub.fetch(name)
    has_images = images.is_one(fetched)
    source = images.read(fetched) if has_images else sources.read(fetched)
    description = (image_convert if has_images else convert).describe(source, name)
    folder = cache_dir / f"{role}-{documents.digest_json(description)[:12]}"
    if hosts.is_main() and not (folder / files.MANIFEST).is_file():
        cache_dir.mkdir(parents=True, exist_ok=True)
        wait = lambda holder: console.say(f"{role:<10} waiting for {holder}, which converts {name}")  # noqa: E731
        with files.Lock(folder.with_name(f".{folder.name}.converting"), folder, wait):
            if not (folder / files.MANIFEST).is_file():
                console.say(f"{role:<10} converting {name} into {folder}")
                (image_convert if has_images else convert).convert(source, folder, name)
    hosts.share(folder, f"the {role} was converted")
    return folder


def digest_of(folder) -> str:
    """Returns the digest that identifies the model of a bundle or step folder.

    Of a folder of another tool it is that of its weights: converting it again gives other files of the same model.
    """
    weights = bundles.read_model_json(folder)["lineage"].get("weights")
    return files.folder_digest(folder) if weights is None else documents.digest_json(weights)
