"""Half a second of changed files a reader; ``python -m tests.robustness.fuzz --minutes 5`` gives each five minutes."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")

from pipeline.core.errors import InputError
from tests.robustness import fuzz


@pytest.mark.parametrize("name", fuzz.READERS)
def test_a_changed_file_is_read_or_refused_in_a_line(tmp_path: Path, name: str) -> None:
    tried, faults = fuzz.fuzz(name, 0.5, 1, tmp_path)
    assert tried and faults == []


def wrong(error: Exception) -> str | None:
    def read(path: Path) -> None:
        raise error

    return fuzz.fault(read, Path("case"))


def test_what_is_no_refusal_in_one_line_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(InputError("case: is damaged; make it again")) is None
    assert wrong(InputError("two", "lines")) == "more than a line: two\nlines"
    assert wrong(KeyError("vector")) == "KeyError: 'vector'"
    monkeypatch.setattr(fuzz, "MEGABYTES", 64)
    assert fuzz.fault(lambda path: bytearray(2**30), Path("case")) is not None
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    assert fuzz.fault(lambda path: endless(), Path("case")) == "TimeoutError: more than 1 s"


def endless() -> None:
    while True:
        pass


def test_a_faulty_file_is_kept_and_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(path: Path) -> None:
        raise KeyError

    monkeypatch.setitem(fuzz.READERS, "csv", fuzz.Reader(lambda: {"one": b"id,text\n"}, read))
    monkeypatch.setattr(fuzz.resource, "setrlimit", lambda *limits: None)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--minutes", "0.001", "--reader", "csv", "--keep", str(tmp_path)])
    with pytest.raises(SystemExit, match="True"):
        fuzz.main()
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith("KeyError: ") and Path(first.partition(": ")[0]).is_file()
