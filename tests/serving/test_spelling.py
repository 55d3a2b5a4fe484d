"""Names that are likely others, misspelt: what is named, and what is left in peace."""

import pytest

from pipeline.serving.spelling import misspelt

READ = ("text", "image", "video")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Text", "text"),
        (" image", "image"),
        ("\uff36ideo", "video"),
        ("txt", "text"),
        ("images", "image"),
        ("ID", "id"),
    ],
)
def test_a_name_in_another_case_width_or_order_of_letters_is_named(name: str, meant: str) -> None:
    assert misspelt(["label", name], READ, ("id",)) == f"{name!r}; is {meant!r} meant?"


def test_a_name_beside_the_one_that_is_read_is_another() -> None:
    assert misspelt(["text", "Text"], READ) is None


@pytest.mark.parametrize("name", ["label", "video_id", "image_url", "textual", "idx", "ids", "", "x" * 10_000])
def test_other_names_are_left_in_peace(name: str) -> None:
    assert misspelt([name], READ, ("id",)) is None


def test_a_long_name_is_cut() -> None:
    assert misspelt([" " * 100 + "text"], READ) == f"{' ' * 40!r}; is 'text' meant?"
