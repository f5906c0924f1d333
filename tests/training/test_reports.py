"""TensorBoard's files are written without torch, which their package would import."""

import os
import subprocess
import sys

CODE = """
import sys
from embed.training import reports
writer = reports._summary_writer()(sys.argv[1])
writer.add_scalar("loss", 1.0, 1)
writer.close()
assert "torch" not in sys.modules
import torch
assert torch.__name__ == "torch"
"""


def test_torch_is_not_imported_and_not_kept_away(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("import sys; print('torch was imported')")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "board")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("torch was imported") == 1  # the one that the code asks for
    assert list((tmp_path / "board").iterdir())
