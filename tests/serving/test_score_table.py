"""A corpus of features → a table of scores, whatever its format; resumed after a kill."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import InputError
from pipeline.corpora.features import FeatureCorpus
from pipeline.serving import score_table
from pipeline.serving.score_predictor import Score, ScorePredictor
from pipeline.serving.score_table import score_corpus
from tests import tracks
from tests.serving import scores
from tests.stages.test_finetune_e2e import scores as own_scores
from tests.tracks import Track


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return tracks.run(tracks.make(tmp_path_factory.mktemp("track")), *scores.STAGES)


@pytest.fixture(scope="module")
def predictor(track: Track) -> ScorePredictor:
    return ScorePredictor.of_project(tracks.params(track), track.layout)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_table, "CHUNK", 16)


def table(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def test_every_row_has_the_score_of_the_models_own_table(
    track: Track, predictor: ScorePredictor, tmp_path: Path
) -> None:
    without = score_corpus(predictor, scores.write(track, tmp_path / "new.parquet"), tmp_path / "out.parquet", 0.5)
    made, known = table(tmp_path / "out.parquet"), own_scores(track)
    assert without == 0 and made["reason"].isna().all()
    assert made["id"].tolist() == track.target["sample_id"].tolist()
    others = ~made["id"].isin(track.rows("final", "val"))  # which are predicted by the models of inner folds
    assert made.loc[others, "score"].tolist() == known[made.loc[others, "id"]].tolist()
    assert (made["score_low"] < made["score"]).all() and (made["score"] < made["score_high"]).all()
    lacking = ~track.present["target"]["audio"]
    assert made["audio_state"].eq("absent").tolist() == lacking.tolist()
    assert (made.loc[lacking, "audio_change"] == 0).all()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["new.parquet", "out.parquet"]


def test_every_format_says_the_same(track: Track, predictor: ScorePredictor, tmp_path: Path) -> None:
    rows = [
        {name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in row.items()}
        for row in scores.rows(track)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "new.csv", index=False)
    score_corpus(predictor, tmp_path / "new.csv", tmp_path / "out.csv", 0.5)
    score_corpus(predictor, scores.write(track, tmp_path / "new.parquet"), tmp_path / "out.parquet", 0.5)
    pd.testing.assert_frame_equal(
        table(tmp_path / "out.csv"), table(tmp_path / "out.parquet"), check_dtype=False, check_exact=False
    )


def test_a_row_that_cannot_be_scored_keeps_its_place_and_says_why(predictor: ScorePredictor, tmp_path: Path) -> None:
    rows = ["id,visual,audio", 'a,"[1,2,3,4]",', "b,,", 'c,"[1,2]",', ',"[4,3,2,1]",']
    (tmp_path / "new.csv").write_text("\n".join(rows) + "\n")
    assert score_corpus(predictor, tmp_path / "new.csv", tmp_path / "out.csv", 0.5) == 2
    made = table(tmp_path / "out.csv")
    assert made["id"].astype(str).tolist() == ["a", "b", "c", "4"]
    assert made["score"].notna().tolist() == [True, False, False, True]
    assert made["reason"][2] == "visual has 2 values, not 4"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("lacks", ["cells", "column"])
def test_rows_without_ids_have_their_numbers(
    track: Track, predictor: ScorePredictor, tmp_path: Path, kind: str, lacks: str
) -> None:
    known = scores.rows(track)[:20]
    rows = [{**row, "id": None} if lacks == "cells" else {**row} for row in known]
    for row in rows if lacks == "column" else ():
        del row["id"]
    new = tmp_path / f"new.{kind}"
    if kind == "csv":
        cells = [
            {name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in row.items()} for row in rows
        ]
        pd.DataFrame(cells).to_csv(new, index=False)
    else:
        pq.write_table(pa.Table.from_pylist(rows), new)
    assert score_corpus(predictor, new, tmp_path / "out.parquet", 0.5) == 0
    made = table(tmp_path / "out.parquet")
    assert made["id"].tolist() == [str(number) for number in range(1, 21)]
    pq.write_table(pa.Table.from_pylist(known), tmp_path / "named.parquet")
    score_corpus(predictor, tmp_path / "named.parquet", tmp_path / "named_out.parquet", 0.5)
    assert made["score"].to_numpy() == pytest.approx(
        table(tmp_path / "named_out.parquet")["score"].to_numpy(), abs=1e-6
    )


class Killed(ScorePredictor):
    """Is killed before its third part."""

    parts = 0

    def score(self, corpus: FeatureCorpus, coverage: float, where: str) -> list[Score]:
        self.parts += 1
        if self.parts == 3:
            raise KeyboardInterrupt
        return super().score(corpus, coverage, where)


def test_a_killed_run_goes_on_where_it_was(track: Track, predictor: ScorePredictor, tmp_path: Path) -> None:
    corpus, out = scores.write(track, tmp_path / "new.parquet"), tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        score_corpus(Killed(predictor.model, "cpu"), corpus, out, 0.5)
    assert not out.exists()
    second = Killed(predictor.model, "cpu")
    second.parts = -9  # counts, and is not killed
    score_corpus(second, corpus, out, 0.5)
    assert second.parts == -9 + 2  # of four parts two were there
    score_corpus(predictor, corpus, tmp_path / "whole.parquet", 0.5)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_another_coverage_starts_again(
    track: Track, predictor: ScorePredictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = scores.write(track, tmp_path / "new.parquet"), tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        score_corpus(Killed(predictor.model, "cpu"), corpus, out, 0.5)
    score_corpus(predictor, corpus, out, 0.6)
    assert "from the start" in capsys.readouterr().err


def test_groups_are_scored_where_groups_were_learned_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grouped = tracks.make(tmp_path / "track")
    tracks.run(grouped, *scores.STAGES, target={"level": "group"})
    using = ScorePredictor.of_project(tracks.params(grouped, target={"level": "group"}), grouped.layout)
    rows = scores.rows(grouped)[:4]
    for at, row in enumerate(rows):
        row["group"], row["audio"] = f"g{at // 2}", [float(at)] * 5
    rows.append({**rows[0], "id": None, "group": None})  # which is a group of its own
    frame = pd.DataFrame(
        [{**row, **{name: json.dumps(row[name]) for name in ("text", "audio", "visual")}} for row in rows]
    )
    frame.to_csv(tmp_path / "new.csv", index=False)
    score_corpus(using, tmp_path / "new.csv", tmp_path / "out.csv", 0.5)
    made = table(tmp_path / "out.csv")
    frame.rename(columns={"group": "Group"}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InputError, match=r"other\.csv: unknown column 'Group'; is 'group' meant\? Rename it, or"):
        score_corpus(using, tmp_path / "other.csv", tmp_path / "other_out.csv", 0.5)
    assert made["id"].tolist() == ["g0", "g1", "5"]
    assert made["reason"].isna().all() and "left out" not in capsys.readouterr().err
    mean = [sum(parts) / 2 for parts in zip(rows[0]["visual"], rows[1]["visual"], strict=True)]
    text = [sum(parts) / 2 for parts in zip(rows[0]["text"], rows[1]["text"], strict=True)]
    (known,) = using.predict([scores.Sample(text, [0.5] * 5, mean)])
    assert made["score"][0] == pytest.approx(known.score, abs=1e-5)

    # A group of which a row is refused is scored without it; one that has no others keeps its place, and says why.
    rows += [{**rows[1], "id": f"more{at}", "group": "g2"} for at in range(3)]
    for at in (0, 2, 3):
        rows[at]["visual"] = [1.0]
    as_json = [{**row, **{name: json.dumps(row[name]) for name in ("text", "audio", "visual")}} for row in rows]
    pd.DataFrame(as_json).to_csv(tmp_path / "bad.csv", index=False)
    capsys.readouterr()
    assert score_corpus(using, tmp_path / "bad.csv", tmp_path / "bad_out.csv", 0.5) == 1
    made = table(tmp_path / "bad_out.csv")
    assert made["id"].tolist() == ["g0", "g1", "5", "g2"]
    assert made["score"].notna().tolist() == [True, False, True, True]
    assert made["reason"][1] == "visual has 1 values, not 4"
    told = "bad.csv: 3 rows are left out of their groups (3 x visual has 1 values, not 4); the first is row 1\n"
    assert told in capsys.readouterr().err


def test_of_a_folder_only_what_a_corpus_has_is_read(predictor: ScorePredictor, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "x.csd").symlink_to(folder / "none")
    with pytest.raises(InputError) as error:
        score_corpus(predictor, folder, tmp_path / "out.csv", 0.5)
    assert "holds no .csd file" in str(error.value)
    (folder / "text.csd").symlink_to(folder / "none")
    with pytest.raises(InputError) as error:
        score_corpus(predictor, folder, tmp_path / "out.csv", 0.5)
    assert str(error.value) == f"{folder / 'text.csd'}: file not found"


def test_other_columns_are_refused_before_anything_is_written(predictor: ScorePredictor, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text('id,visual\na,"[1,2,3]"\n')
    with pytest.raises(InputError, match=r"new\.csv: visual has 3 values a row, and the model reads 4"):
        score_corpus(predictor, tmp_path / "new.csv", tmp_path / "out.csv", 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


@pytest.mark.parametrize(("name", "meant"), [("Audio", "audio"), (" visual", "visual"), ("Id", "id")])
def test_a_column_that_is_likely_one_of_the_model_is_named(
    track: Track, predictor: ScorePredictor, tmp_path: Path, name: str, meant: str
) -> None:
    rows = [{name if key == meant else key: value for key, value in row.items()} for row in scores.rows(track)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    with pytest.raises(InputError) as error:
        score_corpus(predictor, tmp_path / "new.parquet", tmp_path / "out.csv", 0.5)
    said = f"unknown column {name!r}; is {meant!r} meant? Rename it, or leave it out"
    assert str(error.value) == f"{tmp_path / 'new.parquet'}: {said}"
    assert [path.name for path in tmp_path.iterdir()] == ["new.parquet"]


def test_a_part_without_what_the_model_reads_is_no_fault_of_the_table_but_a_whole_table_is(
    track: Track, predictor: ScorePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScorePredictor, "reads", lambda _, part: part.rows.empty or "visual" in part.modalities)
    rows = scores.rows(track)[:40]
    for name, seen in (("some", 20), ("none", 40)):
        bare = [row | {"visual": row["visual"] if at >= seen else None} for at, row in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(bare), tmp_path / f"{name}.parquet")
    score_corpus(predictor, tmp_path / "some.parquet", tmp_path / "out.parquet", 0.5)
    assert len(table(tmp_path / "out.parquet")) == 40
    with pytest.raises(InputError, match=r"none\.parquet: has none of text, audio, visual, which the model reads"):
        score_corpus(predictor, tmp_path / "none.parquet", tmp_path / "none.csv", 0.5)
    assert not (tmp_path / "none.csv").exists()
