"""What a name of a model means: a folder here, or a download from the Hub, of which nothing but data is asked for."""

from embed.interop import hub


def test_the_hub_is_only_asked_for_what_is_not_here(plain, monkeypatch, tmp_path, refused, call):
    assert hub.fetch(str(plain)) == plain
    err = refused(plain, "--revision=main", code=64)
    assert "--revision goes with a Hub name" in err
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    err = refused("somebody/something", code=64)
    assert "to download it huggingface_hub is needed; run: pip install 'embed[huggingface]'" in err
