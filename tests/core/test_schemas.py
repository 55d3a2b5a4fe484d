from pipeline.core.schemas import FeatureSubset, subset_name, subsets_of


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
