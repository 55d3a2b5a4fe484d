import pandas as pd

from pipeline.sentiment.variants import Variant, by_variant

WHOLE, PART = Variant("finetuned", "text_audio"), Variant("finetuned", "text")
POINT, ALONE = Variant("finetuned", "text_audio", groups=20), Variant("finetuned", "text_audio", False, 20)
ROWS = pd.DataFrame(
    [{"sample_id": name, **variant._asdict()} for variant in (WHOLE, POINT, PART, ALONE) for name in ("a", "b")]
)


def test_a_variant_knows_its_rows_by_all_its_columns() -> None:
    for variant in (WHOLE, PART, POINT, ALONE):
        own = variant.of(ROWS)
        assert own["sample_id"].tolist() == ["a", "b"]
        assert {Variant(*row) for row in own[list(Variant._fields)].itertuples(index=False)} == {variant}
    assert WHOLE.of(ROWS.iloc[:0]).empty


def test_a_table_is_taken_apart_in_the_order_of_its_variants() -> None:
    parts = by_variant(ROWS)
    assert list(parts) == [WHOLE, POINT, PART, ALONE]
    assert all(part["sample_id"].tolist() == ["a", "b"] for part in parts.values())
    assert by_variant(ROWS.iloc[:0]) == {}
