"""Training, encoding and searching from Python: the script of README, run as it stands there."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def script() -> str:
    """Returns the code block of README that trains from Python."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    (block,) = [b for b in blocks if "train.run(" in b]
    return block


@pytest.mark.slow
def test_the_script_of_readme_is_short_trains_encodes_and_searches(trained, tmp_path):
    assert len([line for line in script().splitlines() if line.strip()]) <= 15
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    (folder / "model").rename(folder / "minilm")
    (folder / "data" / "pairs").mkdir(parents=True)
    rows = [json.loads(line) for line in (folder / "first.jsonl").read_text().splitlines()]
    pairs = [{"query": row["question"], "positive": row["answer"]} for row in rows]
    (folder / "data/pairs/mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": row["positive"]}) + "\n" for row in pairs))
    done = subprocess.run([sys.executable, "-c", script()], cwd=folder, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert "done       runs/mine at step 30" in printed
    assert "(1, 256)" in printed
    found = [line for line in printed if re.match(r"\d\.\d{3} ", line)]
    assert len(found) == 5 and all(line.split(" ", 1)[1] in {row["positive"] for row in pairs} for line in found)
    assert (folder / "runs/mine/environment.json").is_file() and not (folder / "runs/mine/config.gin").exists()
