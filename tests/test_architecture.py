"""The house: who may import whom, where heavy libraries live, how long a file may be."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "embed").rglob("*.py"))
BASE = {
    "errors",
    "markdown",
    "ranges",
    "console",
    "environment",
    "documents",
    "files",
    "types",
    "vectors",
    "hosts",
    "sharding",
    "config",
    "gin_statements",
    "metrics",
    "arrays",
    "trees",
    "architectures",
    "digests",
    "text",
    "checkpoints",
    "bundles",
    "quantized_arrays",
    "packed_arrays",
    "image_bytes",
    "retry_after",
    "buckets",
}
SOURCES = {"sources"}  # below data
LEAVES = {"data", "models", "losses"}
OBJECTIVES = {"objectives"}  # above the leaves
PARTS = {"training", "compilation", "averaging", "inference", "evaluation", "interop", "curation"}
FORMS = {"gguf", "towers"}  # above interop
ABOVE_INFERENCE = {"index", "serving"}
# library -> the only rooms or files that may import it
HOMES = {
    "flax": {"models"},
    "tensorflow": {"data"},
    "tensorflow_datasets": {"sources"},
    "seqio": {"data"},
    "grain": {"data"},
    "array_record": {"data"},
    "optax": {"training"},
    "gin": {"config", "gin_statements"},
    "orbax": {"checkpoints"},
    "tensorstore": {"arrays"},
    "matplotlib": {"evaluation"},
    "httpx2": {"curation", "sources"},
    "tenacity": {"curation"},
    "jsonschema": {"curation"},
    "bm25s": {"evaluation"},
    "mteb": {"evaluation"},
    "sklearn": {"evaluation", "curation"},
    "bayes_opt": {"curation"},
    "nltk": {"evaluation"},
    "pickle": set(),
    "PIL": {"data", "image_bytes", "interop"},
    "torch": {"interop"},
    "transformers": {"interop"},
    "sentence_transformers": {"interop"},
    "onnxruntime": {"interop"},
    "gguf": {"gguf"},
    "llama_cpp": {"gguf", "interop"},
    "huggingface_hub": {"interop"},
    "usearch": {"index"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "prometheus_client": {"serving"},
    "wandb": {"training"},
    "apache_beam": {"workflows"},
    "fsspec": {"buckets"},
    "aiohttp": {"buckets"},
    "gcsfs": {"buckets"},
    "s3fs": {"buckets"},
}


def room(path: pathlib.Path) -> str:
    relative = path.relative_to(ROOT / "embed")
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@functools.cache
def parsed(path: pathlib.Path) -> tuple[ast.Module, tuple[ast.AST, ...]]:
    """Returns the module, and all of its nodes."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    return module, tuple(ast.walk(module))


@functools.cache
def imports(path: pathlib.Path) -> tuple[str, ...]:
    found = []
    for node in parsed(path)[1]:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "embed" else [node.module]
            )
    return tuple(found)


def allowed(own: str) -> set[str]:
    if own in ("commands", "__main__"):
        return BASE | {"workflows", "commands"}
    if own == "workflows":
        return BASE | SOURCES | LEAVES | OBJECTIVES | PARTS | FORMS | ABOVE_INFERENCE | {"workflows"}
    if own == "__init__":
        return {"inference"}
    if own in ABOVE_INFERENCE:
        return BASE | SOURCES | {own, "inference"}
    if own in FORMS:
        return BASE | LEAVES | {own, "interop"}
    if own in PARTS:
        return BASE | SOURCES | LEAVES | OBJECTIVES | {own}
    if own in OBJECTIVES:
        return BASE | LEAVES | OBJECTIVES
    if own == "data":
        return BASE | SOURCES | {own}
    if own in LEAVES | SOURCES:
        return BASE | {own}
    return BASE


def own_name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_go_down_only():
    wrong = [
        f"{own_name(path)}: the room {room(path)!r} may not import {name}"
        for path in LIBRARY
        for name in imports(path)
        if name.startswith("embed.") and name.split(".")[1] not in allowed(room(path)) | {"__version__"}
    ]
    assert not wrong


def test_heavy_libraries_stay_in_their_rooms():
    wrong = [
        f"{own_name(path)} imports {name}"
        for path in LIBRARY
        for name in imports(path)
        if room(path) not in HOMES.get(name.split(".")[0], {room(path)})
    ]
    assert not wrong


def test_files_are_short_and_say_what_they_are():
    lines = {own_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY}
    assert not {name: number for name, number in lines.items() if number > 400}
    assert not [own_name(path) for path in LIBRARY if not ast.get_docstring(parsed(path)[0])], "no docstring at the top"


def is_unsafe(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("eval", "exec", "__import__")
    if isinstance(node, ast.keyword):
        off = isinstance(node.value, ast.Constant) and node.value.value is False
        return not off and node.arg in ("allow_pickle", "trust_remote_code", "shell")
    return False


def test_nothing_unsafe_is_called():
    assert not [f"{own_name(path)}:{node.lineno}" for path in LIBRARY for node in parsed(path)[1] if is_unsafe(node)]


def test_public_functions_have_docstrings():
    missing = []
    for path in LIBRARY:
        for node in parsed(path)[0].body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            # Every command file has the same two entry points, described once in commands/__init__.py.
            if public and room(path) == "commands" and node.name in ("add_arguments", "run"):
                continue
            if public and not ast.get_docstring(node):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not missing


def test_the_gin_folder_is_no_package():
    assert not list((ROOT / "gin").rglob("__init__.py")), "gin/__init__.py would shadow the package gin-config"


def test_every_package_folder_has_an_init():
    for folder in {p.parent for p in LIBRARY}:
        assert (folder / "__init__.py").exists()


@pytest.mark.parametrize("statement", ["import embed", "import embed.commands.main"])
def test_the_front_door_is_light(statement):
    check = f"import sys; {statement}; print(sorted({{'jax', 'tensorflow', 'flax', 'gin'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_averaging_starts_without_jax():
    modules = "embed.commands.average, embed.averaging.soup, embed.averaging.lineage"
    check = f"import sys; import {modules}; print(sorted({{'jax', 'orbax', 'tensorflow'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@pytest.mark.slow
def test_training_and_inference_load_no_tensorflow_and_models_are_converted_and_exported_without_torch():
    """In this order in one process, whose start is what takes time."""
    first = "embed.training.loop, embed.inference.model, embed.inference.search, embed.data.loader, embed.data.cache"
    then = (
        "embed.interop.convert, embed.interop.sentence_transformers, embed.interop.stablehlo, embed.interop.torch_twin"
    )
    check = (
        f"import sys; import {first}; print(sorted({{'tensorflow', 'seqio', 'gin'}} & set(sys.modules))); "
        f"import {then}; print(sorted({{'torch', 'transformers', 'tensorflow'}} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split() == ["[]", "[]"]


def test_no_room_is_more_than_15_percent_of_the_lines():
    lines = {}
    for path in LIBRARY:
        lines[room(path)] = lines.get(room(path), 0) + len(path.read_text(encoding="utf-8").splitlines())
    largest = max(lines, key=lines.get)
    assert lines[largest] < 0.15 * sum(lines.values()), f"{largest}: {lines[largest]} of {sum(lines.values())} lines"


def test_local_variables_are_named_after_what_they_hold():
    vague = {"found", "told", "own", "said", "made"}
    names = []
    for path in LIBRARY:
        for node in parsed(path)[1]:
            name = node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""
            names += [f"{own_name(path)}:{node.lineno} {name}"] if name in vague else []
    assert not names


def test_every_module_with_logic_has_a_test_file_of_its_name():
    logic = (ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.BoolOp, ast.comprehension)
    missing = []
    for path in LIBRARY:
        relative = path.relative_to(ROOT / "embed")
        if path.name.startswith("__") or not any(isinstance(node, logic) for node in parsed(path)[1]):
            continue
        # A command and its workflow may have one file of tests.
        rooms = {"commands", "workflows"} if relative.parts[0] in ("commands", "workflows") else {str(relative.parent)}
        if not any((ROOT / "tests" / room / f"test_{path.name}").is_file() for room in rooms):
            missing.append(own_name(path))
    assert not missing
