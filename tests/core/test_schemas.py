import pytest

from pipeline.core.schemas import FINAL, FeatureSubset, fold_name, repeat_and_fold, repeat_of, subset_name, subsets_of


def test_subsets_and_their_names() -> None:
    every: FeatureSubset = ("text", "audio", "visual")
    assert [subset_name(subset) for subset in subsets_of(every)] == [
        "text",
        "audio",
        "visual",
        "text_audio",
        "text_visual",
        "audio_visual",
        "text_audio_visual",
    ]
    assert subsets_of(("audio",)) == [("audio",)]
    assert subsets_of(()) == []


@pytest.mark.parametrize(("repeat", "fold"), [(0, 0), (3, 12), (10, 4)])
def test_a_folds_name_says_its_repeat_and_its_number(repeat: int, fold: int) -> None:
    assert repeat_and_fold(fold_name(repeat, fold)) == (repeat, fold)
    assert repeat_of(fold_name(repeat, fold)) == repeat


def test_folds_are_ordered_by_number_and_the_final_one_is_the_last_of_the_first_repeat() -> None:
    names = [fold_name(0, 10), fold_name(1, 0), FINAL, fold_name(0, 9)]
    assert sorted(names, key=repeat_and_fold) == [fold_name(0, 9), fold_name(0, 10), FINAL, fold_name(1, 0)]
