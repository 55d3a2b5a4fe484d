from pipeline.core.schemas import Subset, subsets_of, variant


def test_subsets_and_their_names() -> None:
    every: Subset = ("text", "audio", "visual")
    names = [variant("zero_shot", subset, every) for subset in subsets_of(every)]
    assert names == [
        "zero_shot:text",
        "zero_shot:audio",
        "zero_shot:visual",
        "zero_shot:text_audio",
        "zero_shot:text_visual",
        "zero_shot:audio_visual",
        "zero_shot",
    ]
    assert [variant("source", subset, ("audio",)) for subset in subsets_of(("audio",))] == ["source"]
