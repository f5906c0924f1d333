"""`python -m embed` in this process: it is the console script, and importing it runs nothing."""

import importlib
import runpy
import sys

import pytest

import embed


@pytest.mark.parametrize(
    "word, code, said", [("--version", 0, f"embed {embed.__version__}\n"), ("trian", 64, "did you mean 'train'")]
)
def test_the_module_is_the_console_script(monkeypatch, capsys, word, code, said):
    monkeypatch.setattr(sys, "argv", ["embed", word])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("embed", run_name="__main__")
    assert caught.value.code == code and said in "".join(capsys.readouterr())


def test_importing_it_runs_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["embed", "trian"])
    monkeypatch.delitem(sys.modules, "embed.__main__", raising=False)
    importlib.import_module("embed.__main__")
    assert capsys.readouterr() == ("", "")
