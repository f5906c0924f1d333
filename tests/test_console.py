"""What long commands say while they work."""

from embed import console


def test_a_line_a_minute_where_there_is_no_terminal(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(console.time, "time", lambda: now[0])
    with console.text_bar(9000, every_minute=True) as progress:
        for seconds in (30, 29, 1, 59, 1):
            now[0] += seconds
            progress(1000)
    assert capsys.readouterr().out.splitlines() == [
        "3,000 of 9,000 texts, 50 a second, 2 minutes left",
        "5,000 of 9,000 texts, 42 a second, 2 minutes left",
    ]


def test_nothing_is_said_of_nothing_or_where_shards_are_told(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(console.time, "time", lambda: now[0])
    for total, every_minute in ((0, True), (9000, False)):
        with console.text_bar(total, every_minute) as progress:
            now[0] += 100
            progress(total)
    assert capsys.readouterr().out == ""
