import pytest
from rich.table import Table

from pipeline.reporting.screen import Screen

EVIL = "\x1b]0;owned\x07\x1b[2J\u202eJoy\r!"


def test_labels_command_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(200)
    table = Table("label", EVIL, title=EVIL)
    table.add_row(EVIL, "[bold]kept[/bold]")
    screen.print(table)
    screen.print(f"a note on {EVIL}", soft_wrap=True)
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(said)
    assert said.count("Joy") == 4
    assert "[bold]kept[/bold]" in said
