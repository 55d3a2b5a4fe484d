"""An output is never an input, by whatever name, nor a folder or a device; nothing is touched before that."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import params
from pipeline.core.errors import InputError
from pipeline.core.outputs import check_distinct, check_output
from pipeline.corpora.features import read_corpus
from pipeline.corpora.manifest import read_manifest


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table in a folder, which is the working one."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "part.csd").write_text("features")
    table = tmp_path / "posts.csv"
    table.write_text("id,text\n1,hello\n")
    monkeypatch.chdir(tmp_path)
    return table


def soft(table: Path) -> Path:
    link = table.with_name("link.csv")
    link.symlink_to(table)
    return link


def hard(table: Path) -> Path:
    link = table.with_name("hard.csv")
    link.hardlink_to(table)
    return link


def by_a_linked_folder(table: Path) -> Path:
    folder = table.with_name("again")
    folder.symlink_to(table.parent, target_is_directory=True)
    return folder / table.name


def by_descriptor(table: Path) -> Path:
    return Path(f"/proc/self/fd/{os.open(table, os.O_RDONLY)}")


SAME: dict[str, Callable[[Path], Path]] = {
    "itself": lambda table: table,
    "relative": lambda table: Path(table.name),
    "dots": lambda table: table.parent / "corpus" / ".." / table.name,
    "doubled slash": lambda table: Path(f"{table.parent}//{table.name}"),
    "link": soft,
    "hard link": hard,
    "linked folder": by_a_linked_folder,
    "descriptor": by_descriptor,
}


@pytest.mark.parametrize("spelling", SAME)
def test_an_input_by_any_name_is_refused(given: Path, spelling: str) -> None:
    if spelling == "descriptor" and not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    out = SAME[spelling](given)
    with pytest.raises(InputError, match=r"is the input .*; give another name"):
        check_output(out, [given])
    assert given.read_text() == "id,text\n1,hello\n"


def test_a_link_as_input_is_its_file(given: Path) -> None:
    with pytest.raises(InputError, match="is the input"):
        check_output(given, [soft(given)])


@pytest.mark.parametrize("place", ["corpus/scores.csv", "corpus/part.csd", "corpus/deep/er/scores.csv"])
def test_nothing_is_written_into_a_folder_that_is_read(given: Path, place: str) -> None:
    with pytest.raises(InputError, match="lies in corpus, which is read"):
        check_output(Path(place), [Path("corpus")])
    assert [path.name for path in Path("corpus").iterdir()] == ["part.csd"]


def test_a_link_into_a_folder_that_is_read_is_refused(given: Path) -> None:
    link = given.with_name("out.csv")
    link.symlink_to("corpus/part.csd")
    with pytest.raises(InputError, match="lies in corpus"):
        check_output(link, [Path("corpus")])


def test_an_input_where_the_parts_of_the_output_go_is_refused(given: Path) -> None:
    side = Path(".out.csv.parts")
    side.mkdir()
    (side / "0.parquet").write_text("x")
    with pytest.raises(InputError, match="would be removed"):
        check_output(Path("out.csv"), [side / "0.parquet"])


def special(kind: str, folder: Path) -> Path:
    path = folder / "out.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/full")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(path.name)
    elif kind == "loop":
        path.symlink_to(path)
    return path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has neither pipes nor devices with a name")
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("folder", "is a folder"),
        ("pipe", "is a pipe"),
        ("device", "is a pipe, a socket or a device"),
        ("socket", "is a pipe, a socket"),
        ("loop", "cannot be written to: Too many levels"),
    ],
)
def test_what_is_no_file_is_refused_and_left_alone(given: Path, kind: str, told: str) -> None:
    path = special(kind, given.parent)
    before = path.lstat()
    with pytest.raises(InputError, match=told):
        check_output(path, [given])
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("name", ["a\0b.csv", "x" * 300 + ".csv"])
def test_a_name_that_no_file_can_have_is_one_line(given: Path, name: str) -> None:
    with pytest.raises(InputError) as error:
        check_output(Path(name), [given])
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with a name")
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pkl", ".jsonl", ".yaml"])
def test_a_pipe_is_waited_for_by_no_reader(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    read: Callable[[], object] = {
        ".jsonl": lambda: read_manifest(path, tmp_path),
        ".yaml": lambda: params.load(path),
    }.get(suffix, lambda: read_corpus(path, "target.corpus"))
    with pytest.raises(InputError, match=r"is a pipe|not a file"):
        read()


def test_two_outputs_of_one_name_are_refused(given: Path) -> None:
    check_distinct([Path("a.csv"), Path("b.md")])
    with pytest.raises(InputError, match="are one file"):
        check_distinct([Path("a.csv"), Path("corpus/../a.csv")])


def test_a_new_file_and_an_old_output_are_taken(given: Path) -> None:
    check_output(Path("new/er/out.csv"), [given, Path("corpus")])
    assert Path("new/er").is_dir()
    Path("old.csv").write_text("of another run")
    check_output(Path("old.csv"), [given])
    assert Path("old.csv").read_text() == "of another run"
