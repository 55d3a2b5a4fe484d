"""Paths that strangers write lead to no file outside of their folder."""

import os
from pathlib import Path

import pytest

from pipeline.core.files import NOT_FOUND, MediaError, inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of media beside a secret, which nothing in it may lead to."""
    (tmp_path / "secret.jpg").touch()
    (tmp_path / "media-of-others").mkdir()
    (tmp_path / "media" / "clips").mkdir(parents=True)
    (tmp_path / "media" / "a.jpg").touch()
    return tmp_path / "media"


@pytest.mark.parametrize("value", ["a.jpg", "./a.jpg", "clips/../a.jpg", "clips\\..\\a.jpg", "../media/a.jpg"])
def test_a_path_inside_the_folder_is_resolved(folder: Path, value: str) -> None:
    assert inside(folder, value) == (folder / "a.jpg").resolve()


@pytest.mark.parametrize(
    "value",
    [
        "../secret.jpg",
        "clips/../../secret.jpg",
        "..\\secret.jpg",
        "clips\\..\\..\\secret.jpg",
        "/etc/passwd",
        "\\etc\\passwd",
        "//server/share/a.jpg",
        "\\\\server\\share\\a.jpg",
        "../media-of-others/a.jpg",
        "..",
    ],
)
def test_no_path_leads_out_of_the_folder(folder: Path, value: str) -> None:
    with pytest.raises(MediaError, match=r"^path leads out of posts\.media$"):
        inside(folder, value)
    with pytest.raises(MediaError, match=r"^path leads out of the bundle$"):
        inside(folder, value, name="the bundle")


def test_an_absolute_path_into_the_folder_is_one_of_its_files(folder: Path) -> None:
    assert inside(folder, str(folder / "a.jpg")) == (folder / "a.jpg").resolve()


@pytest.mark.parametrize("value", ["C:\\Windows\\win.ini", "C:/Windows/win.ini", "c:win.ini", "\\\\?\\C:\\win.ini"])
def test_another_drive_is_outside_or_a_mere_name(folder: Path, value: str) -> None:
    """Where drives have letters these are refused; elsewhere a letter and a colon are a file name like any other."""
    try:
        assert inside(folder, value).is_relative_to(folder.resolve())
    except MediaError as error:
        assert str(error) == "path leads out of posts.media"


@pytest.mark.parametrize("value", ["a\0.jpg", "\0", "a" * 5000])
def test_a_name_that_no_file_can_have_is_no_file(folder: Path, value: str) -> None:
    try:
        assert not inside(folder, value).exists()
    except (MediaError, OSError) as error:
        assert isinstance(error, OSError) or str(error) == NOT_FOUND


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_links_are_followed_before_they_are_judged(folder: Path) -> None:
    (folder / "out.jpg").symlink_to(folder.parent / "secret.jpg")
    (folder / "up").symlink_to(folder.parent)
    (folder / "in.jpg").symlink_to(folder / "a.jpg")
    (folder.parent / "other-name").symlink_to(folder)
    for value in ("out.jpg", "up/secret.jpg", "up"):
        with pytest.raises(MediaError, match="leads out"):
            inside(folder, value)
    assert inside(folder, "in.jpg") == inside(folder.parent / "other-name", "a.jpg")


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_links_in_a_circle_are_no_file(folder: Path) -> None:
    (folder / "round.jpg").symlink_to(folder / "round.jpg")
    try:
        assert not inside(folder, "round.jpg").exists()  # as newer Pythons have it
    except MediaError as error:
        assert str(error) == NOT_FOUND


def test_a_path_may_be_relative_to_another_folder(folder: Path) -> None:
    tables = folder.parent / "tables"
    assert inside(folder, "../media/a.jpg", base=tables) == (folder / "a.jpg").resolve()
    with pytest.raises(MediaError, match="leads out"):
        inside(folder, "a.jpg", base=tables)
