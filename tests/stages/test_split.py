import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import artifacts, schemas
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.corpora import manifest, stored_rows, wording
from pipeline.params import Params
from pipeline.stages import split

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def params(**blocks: dict[str, Any]) -> Params:
    settings: dict[str, dict[str, Any]] = {
        "posts": {"manifest": "posts.csv", "media": "."},
        "source": {"corpus": "source.parquet", "texts": "source.parquet"},
        "target": {"corpus": "target.parquet", "folds": 4, "repeats": 2},
    }
    return Params.model_validate({name: settings.get(name, {}) | blocks.get(name, {}) for name in settings | blocks})


PARAMS = params()


def features(count: int, groups: int, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Rows of a corpus, ``groups`` of them one after another, with audio of ten columns."""
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"r{at:03d}",
            "group": f"v{at % groups:02d}",
            "score": float(rng.normal()),
            "split": None,
            "text": None,
            "audio": rng.normal(size=10).tolist(),
            **more,
        }
        for at in range(count)
    ]


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    kinds = {name: pa.string() for name in ("id", "group", "split", "text")} | {"score": pa.float64()}
    schema = pa.schema([*kinds.items(), ("audio", pa.list_(pa.float32()))])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def write(
    root: Path,
    rows: list[dict[str, Any]],
    source: list[dict[str, Any]] | None = None,
    target: list[dict[str, Any]] | None = None,
) -> Layout:
    pd.DataFrame(rows).to_csv(root / "posts.csv", index=False)
    named = features(60, 60) if source is None else source
    table(root / "source.parquet", [row | {"group": str(row["group"]).replace("v", "s")} for row in named])
    table(root / "target.parquet", features(40, 20, 1) if target is None else target)
    return Layout(root)


def posts(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"p{at:03d}", "label": "ab"[at % 2], "text": f"text number {at}", **more} for at in range(count)]


def read(layout: Layout) -> pd.DataFrame:
    return artifacts.read_posts(layout.table("posts")).set_index("sample_id")


def metrics(layout: Layout) -> dict[str, Any]:
    return json.loads(layout.details("split").read_text())["posts"]


def test_shares_and_order(tmp_path: Path) -> None:
    layout = write(tmp_path, posts(200)[::-1])
    split.run(PARAMS, layout)
    table = read(layout)
    assert list(table.index) == sorted(table.index)
    assert pd.crosstab(table["split"], table["label"]).to_dict("list") == {"a": [25, 65, 10], "b": [25, 65, 10]}
    assert metrics(layout)["train"] == {"rows": 130, "class": {"a": 65, "b": 65}, "modalities": {"text": 130}}


def test_the_result_does_not_depend_on_what_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    words = [f"w{at}" for at in range(40)]
    rows = [
        {**row, "text": " ".join(rng.choice(words, rng.integers(2, 16))), "group": f"author {rng.integers(150)}"}
        for row in posts(600)
    ]
    for at in range(0, 600, 7):
        rows[at]["text"] = rows[rng.integers(600)]["text"].replace("w1 ", "w2 ")
    rows[5]["id"] = rows[590]["id"]
    runs = []
    for name, sizes in {"whole": {}, "small": {"AT_ONCE": 10, "SORTED_TOGETHER": 64}}.items():
        for constant, size in sizes.items():
            monkeypatch.setattr(stored_rows, constant, size)
            monkeypatch.setattr(stored_rows, "IN_MEMORY_BYTES", 100)
            monkeypatch.setattr(manifest, "AT_ONCE", 10)
            monkeypatch.setattr(wording, "TOGETHER", 10)
        (tmp_path / name).mkdir()
        layout = write(tmp_path / name, rows)
        split.run(PARAMS, layout)
        runs.append((read(layout), metrics(layout), layout.refused.read_text()))
    (table, numbers, refused), (again, same_numbers, same_refused) = runs
    pd.testing.assert_frame_equal(table, again)
    assert (numbers, refused) == (same_numbers, same_refused)
    assert numbers["copies"]["same_text"] > 40 and numbers["refused"]["rows"] == 1


def test_a_manifest_in_parts_is_the_same_as_one(tmp_path: Path) -> None:
    layout = write(tmp_path, posts(100))
    split.run(PARAMS, layout)
    whole = read(layout)
    folder = tmp_path / "posts.parquet"
    folder.mkdir()
    frame = pd.DataFrame(posts(100))
    for part in range(3):
        frame.iloc[part * 40 : part * 40 + 40].to_parquet(folder / f"part-{part}.parquet")
    split.run(params(posts={"manifest": "posts.parquet"}), layout)
    pd.testing.assert_frame_equal(read(layout), whole)


def test_authors_and_copies_are_one_group(tmp_path: Path) -> None:
    rows = posts(100)
    for at in range(10):
        rows[at]["group"] = "amy"
    rows[10]["text"] = "TEXT number 3!"  # by another author, word for word as one of amy's
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    table = read(layout)
    assert set(table["group_id"].iloc[:11]) == {"amy"}
    assert table["split"].iloc[:11].nunique() == 1
    assert metrics(layout)["copies"]["same_text"] == 1
    assert metrics(layout)["groups"] == {"given": 91, "after_merging": 90, "largest_share": 0.11}


def test_a_given_split_is_kept_and_what_crosses_it_is_refused(tmp_path: Path) -> None:
    rows = [
        {**row, "split": ("train", "train", "train", "val", "test")[at // 2 % 5]} for at, row in enumerate(posts(100))
    ]
    rows[0]["text"] = rows[8]["text"]  # train, a copy of test
    rows[6]["text"] = rows[18]["text"]  # val, a copy of test
    rows[1]["group"] = rows[7]["group"] = "amy"  # in train and val
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    table = read(layout)
    assert all(table.loc[row["id"], "split"] == row["split"] for row in rows if row["id"] in table.index)
    refused = pd.read_csv(layout.refused)
    assert refused.to_dict("records") == [
        {
            "corpus": "posts",
            "row": row,
            "id": f"p{row - 1:03d}",
            "reason": f"{what} stands in a more protected split, as {twin}",
        }
        for row, what, twin in [
            (1, "the same text also", "p008"),
            (2, "group also", "p007"),
            (7, "the same text also", "p018"),
        ]
    ]
    assert metrics(layout)["refused"] == {
        "rows": 3,
        "group also stands in a more protected split": 1,
        "the same text also stands in a more protected split": 2,
    }


def test_a_refused_row_has_a_whole_number(tmp_path: Path) -> None:
    rows = posts(100)
    rows[5]["id"] = "p000"
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)  # in which nothing else is refused, of this corpus and others
    assert layout.refused.read_text().splitlines() == ["corpus,row,id,reason", "posts,6,p000,id already used in row 1"]


def test_a_copy_of_a_test_row_goes_and_the_rest_of_its_dialogue_stays(tmp_path: Path) -> None:
    rows = [{**row, "group": f"dialogue {at // 5}"} for at, row in enumerate(posts(200))]
    rows = [{**row, "split": ("train", "train", "val", "test")[at // 5 % 4]} for at, row in enumerate(rows)]
    rows[1]["text"] = rows[16]["text"] = "a line of dialogue 0 that dialogue 3 says again"
    rows[3]["text"] = rows[8]["text"] = "and another one that both of the training dialogues have"
    for at in range(0, 200, 5):
        rows[at]["text"] = "yeah"
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    table = read(layout)
    assert {row["id"] for row in rows} - set(table.index) == {"p001"}
    assert table["split"].to_dict() == {row["id"]: row["split"] for row in rows if row["id"] != "p001"}
    assert table.groupby("group_id")["split"].nunique().max() == 1
    assert table.loc[["p000", "p004", "p005", "p009"], "group_id"].unique().tolist() == ["dialogue 0"]
    assert table["group_id"].nunique() == 39
    assert metrics(layout)["refused"] == {"rows": 1, "the same text also stands in a more protected split": 1}


def dialogues(count: int, seed: int) -> list[dict[str, Any]]:
    """Ten lines each, of 1 to 14 words; short ones are of those that everybody says."""
    rng = np.random.default_rng(seed)
    usual = ["hey", "yeah", "okay", "oh my god", "what are you doing", "😂😂", "thank you so much"]
    rows = []
    for at in range(10 * count):
        words = rng.integers(0, 3000, int(rng.integers(4, 15)))
        text = str(rng.choice(usual)) if rng.random() < 0.3 else " ".join(f"w{word}" for word in words)
        rows.append({"id": f"p{at:05d}", "label": "ab"[at % 2], "text": text, "group": f"dialogue {at // 10}"})
    return rows


@pytest.mark.parametrize("given", [False, True])
def test_planted_copies_are_found_among_lines_that_everybody_says(tmp_path: Path, given: bool) -> None:
    rows, rng = dialogues(300, 0), np.random.default_rng(1)
    parts = ["train"] * 210 + ["val"] * 40 + ["test"] * 50
    own = [at for at, row in enumerate(rows) if row["text"][1].isdigit()]
    chosen = rng.permutation(own)[:120].reshape(60, 2)
    for one, other in chosen:
        rows[other]["text"] = rows[one]["text"].upper() + "!"
    if given:
        rows = [{**row, "split": parts[at // 10]} for at, row in enumerate(rows)]
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    table = read(layout)
    groups = table["group_id"].to_dict()
    for one, other in ((rows[a], rows[b]) for a, b in chosen):
        if not given or one["split"] == other["split"]:
            assert groups[one["id"]] == groups[other["id"]]
        else:  # the more protected one stays
            worse, better = sorted((one, other), key=lambda row: ("train", "val", "test").index(row["split"]))
            assert worse["id"] not in groups and better["id"] in groups
    assert table.groupby("group_id")["split"].nunique().max() == 1
    crossing = sum(rows[a]["split"] != rows[b]["split"] for a, b in chosen) if given else 0
    assert metrics(layout)["refused"]["rows"] == crossing == len(rows) - len(table)
    assert metrics(layout)["copies"]["same_text"] == 60
    assert "warnings" not in metrics(layout)


def test_a_group_that_copies_have_grown_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = dialogues(50, 2)
    for at in range(0, 200, 10):
        rows[at]["text"] = "previously on this programme, if you remember that at all"
    rows[205]["text"] = rows[305]["text"] = "one more line that two of the dialogues have"
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    warning = (
        "a group has 200 of 500 rows, more than split.max_group_share 0.1, since copies are one group: "
        f"20 rows of 20 groups have the same text, that of {rows[0]['id']}"
    )
    assert metrics(layout)["warnings"] == [warning]
    assert f"split: {warning}\n" in capsys.readouterr().err
    split.run(params(split={"max_group_share": 0.4}), layout)
    assert "warnings" not in metrics(layout)


def test_labels_that_differ_in_spelling_alone_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = posts(60)
    for at, row in enumerate(rows):
        row["label"] = ("Joy", "joy", "Anger")[at % 3]
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    warning = "the labels 'Joy', 'joy' are classes of their own; spell them alike if they are one"
    without = "no post has a group: posts of one author may stand in several parts"
    assert metrics(layout)["warnings"] == [warning, without]
    assert capsys.readouterr().err.count(f"split: {warning}\n") == 1


@pytest.mark.skipif(not (DATA / "meld_text").is_dir(), reason=f"no corpus of dialogues at {DATA}")
def test_real_dialogues_keep_their_split_and_lose_only_copies(tmp_path: Path) -> None:
    corpus = {"manifest": str(DATA / "meld_text" / "manifest.parquet"), "media": str(DATA / "meld_text")}
    split.run(Params.model_validate({"tracks": ["posts"], "posts": corpus}), Layout(tmp_path))
    assert metrics(Layout(tmp_path))["refused"]["rows"] < 0.01 * 11_098
    assert metrics(Layout(tmp_path))["groups"]["largest_share"] < 0.01
    assert read(Layout(tmp_path)).groupby("group_id")["split"].nunique().max() == 1


@pytest.mark.parametrize(("rows", "warned"), [(30, False), (40, True)])
def test_a_large_group_that_was_given_is_no_matter_of_links_but_may_be_a_word_for_none(
    tmp_path: Path, rows: int, warned: bool
) -> None:
    layout = write(tmp_path, [{**row, "group": "nan" if at < rows else None} for at, row in enumerate(posts(100))])
    split.run(PARAMS, layout)
    warning = "a given group has 40 of 100 rows, that of p000; if its name means that there is none (nan, unknown)"
    assert metrics(layout).get("warnings", [""])[0].startswith(warning) == warned
    assert warned or "warnings" not in metrics(layout)


def test_one_post_of_a_few_is_no_large_group(tmp_path: Path) -> None:
    words = ["one here", "two there", "three away", "four again", "five more", "six gone"]
    layout = write(tmp_path, [{**row, "text": words[at]} for at, row in enumerate(posts(6))])
    split.run(PARAMS.model_copy(update={"tracks": ("posts",)}), layout)
    assert metrics(layout)["warnings"] == ["no post has a group: posts of one author may stand in several parts"]


def test_what_a_table_names_makes_no_line_of_its_own_and_commands_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"a\nb": 1, "x" * 100: 1}
    rows = [
        {**row, **odd, "id": f"p{at}\x1b[2J", "group": "nan" if at < 25 else None} for at, row in enumerate(posts(50))
    ]
    layout = write(tmp_path, rows)
    split.run(PARAMS.model_copy(update={"tracks": ("posts",)}), layout)
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(r"split: a given group has 25 of 50 rows, that of p0\x1b[2J; if its name means")
    assert told[-1] == f"split: posts: of the table's columns are not read: a b, {'x' * 39}…"
    assert all(line.startswith("split: ") for line in told)


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_what_was_held_out_stays_held_out(tmp_path: Path, held_out: str) -> None:
    rows = [{**row, "split": "train" if at < 80 else held_out} for at, row in enumerate(posts(100))]
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    table = read(layout)
    assert set(table.index[table["split"] == "test"]) == {f"p{at:03d}" for at in range(80, 100)}
    assert (table["split"] == "val").sum() == 8
    assert "validation was taken out of the training rows" in metrics(layout)["split"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**row, "label": ""} if at < 10 else row for at, row in enumerate(rows)],
         "10 of 100 rows refused (10 x no label), more than split.max_refused_share 0.05; the first is row 1, id p000"),
        (lambda rows: [{**row, "split": "train"} for row in rows], "no row is left for test"),
        (lambda rows: [{**row, "group": "one"} for row in rows], "no row is left for"),
        (lambda rows: [{**row, "label": "a"} for row in rows], "all training rows have the label a"),
        (lambda rows: [{**row, "label": "c"} if at == 99 else row for at, row in enumerate(
            [{**row, "split": ("train", "val", "test")[(at > 60) + (at > 80)]} for at, row in enumerate(rows)])],
         "no training row has the label c"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_stops_in_one_line_and_writes_nothing(tmp_path: Path, change: Any, message: str) -> None:
    layout = write(tmp_path, change(posts(100)))
    with pytest.raises(InputError) as caught:
        split.run(PARAMS, layout)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["posts.csv", "source.parquet", "target.parquet"]


def test_a_missing_media_folder_says_which_param(tmp_path: Path) -> None:
    layout = write(tmp_path, posts(10))
    with pytest.raises(InputError, match=r"not a folder; set posts\.media"):
        split.run(Params.model_validate({"posts": {"manifest": "posts.csv", "media": "gone"}}), layout)


# --- source and target ---------------------------------------------------------------------------------------------


def run(root: Path, settings: Params = PARAMS, **corpora: list[dict[str, Any]]) -> Layout:
    layout = write(root, posts(60), **corpora)
    split.run(settings, layout)
    return layout


def read_scored(layout: Layout, corpus: str) -> pd.DataFrame:
    return artifacts.read_scored(layout.table(corpus)).set_index("sample_id")


def folds(layout: Layout) -> pd.DataFrame:
    return artifacts.read_parquet(layout.folds, schemas.FOLDS_TABLE).to_pandas()


def report(layout: Layout, corpus: str) -> dict[str, Any]:
    return json.loads(layout.details("split").read_text())[corpus]


def refusals(layout: Layout) -> list[tuple[str, int, str, str]]:
    return list(pd.read_csv(layout.refused).itertuples(index=False, name=None))


def parts(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """The rows with parts in turn by their group."""
    return [row | {"split": names[int(row["group"][1:]) % len(names)]} for row in rows]


WORDS = [f"this is row number {at} of all the rows that there are in here" for at in range(200)]


def test_without_a_split_the_source_gets_one_and_the_target_is_cross_validated(tmp_path: Path) -> None:
    layout = run(tmp_path)
    source, target = read_scored(layout, "source"), read_scored(layout, "target")
    assert source["split"].value_counts().to_dict() == {"train": 40, "val": 5, "test": 15}
    assert source.index.is_monotonic_increasing
    assert set(target["split"]) == {"train"}
    assert set(target["given_split"]) == {None}
    assert target.loc["r003", "group_id"] == "v03"
    assert len(read_scored(layout, "source_texts")) == 0
    assert report(layout, "target")["protocol"] == "cross_validation"
    assert report(layout, "target")["folds"] == folds(layout)["fold"].nunique() == 9
    summary = report(layout, "source")
    scores = np.array([row["score"] for row in features(60, 60)])
    assert summary["train"] == {"rows": 40, "groups": 40}
    assert summary["score"] == pytest.approx(
        {"mean": scores.mean(), "std": scores.std(), "min": scores.min(), "max": scores.max()}, abs=1e-6
    )
    first = {name: layout.table(name).read_bytes() for name in ("source", "target")}
    split.run(PARAMS, layout)
    assert first == {name: layout.table(name).read_bytes() for name in ("source", "target")}


def test_a_given_split_is_a_holdout(tmp_path: Path) -> None:
    target = parts(features(40, 20, 1), "train", "train", "train", "val", "test")
    target[0] = target[0] | {"split": "excluded"}
    layout = run(tmp_path, target=target)
    rows = read_scored(layout, "target")
    assert rows["split"].equals(rows["given_split"])
    assert set(folds(layout)["fold"]) == {"final"}
    assert folds(layout).set_index("sample_id")["role"].to_dict() == rows["split"].to_dict()
    assert report(layout, "target")["set_aside"] == {"rows": 1, "excluded": 1}
    assert report(layout, "target")["protocol"] == "holdout"
    layout = run(tmp_path, params(target={"protocol": "cross_validation"}), target=target)
    rows = read_scored(layout, "target")
    assert set(rows["split"]) == {"train"}
    assert set(rows["given_split"]) == {"train", "val", "test"}


@pytest.mark.parametrize("given", [None, "train", "val"])
def test_a_holdout_can_be_made(tmp_path: Path, given: str | None) -> None:
    target = [row | {"split": given} for row in features(80, 40, 1)]
    layout = run(tmp_path, params(target={"protocol": "holdout"}), target=target)
    rows = read_scored(layout, "target")
    # Shares of 8 and 20 rows, give or take a group.
    counts = rows["split"].value_counts()
    assert 6 <= counts["val"] <= 10
    assert 18 <= counts["test"] <= 22
    assert rows.groupby("group_id")["split"].nunique().max() == 1
    layout = run(tmp_path, target=target)
    assert report(layout, "target")["protocol"] == "cross_validation"


def test_rows_marked_val_are_the_test_part_where_nothing_is_marked_test(tmp_path: Path) -> None:
    layout = run(tmp_path, source=parts(features(60, 60), "train", "train", "val"))
    rows = read_scored(layout, "source")
    assert (rows.loc[rows["given_split"] == "val", "split"] == "test").all()
    assert rows["split"].value_counts().to_dict() == {"train": 37, "test": 20, "val": 3}


def test_copies_are_one_group_where_the_split_is_made(tmp_path: Path) -> None:
    source, target = features(60, 60), features(40, 20, 1)
    source[50]["audio"] = source[3]["audio"]
    target[1] |= {"text": WORDS[0], "audio": target[1]["audio"]}
    target[2] |= {"text": WORDS[0].upper()}
    layout = run(tmp_path, source=source, target=target)
    rows = read_scored(layout, "source")
    assert rows["group_id"][["r003", "r050"]].tolist() == ["s03", "s03"]
    assert rows["split"][["r003", "r050"]].nunique() == 1
    assert set(read_scored(layout, "target").loc[["r001", "r002", "r021", "r022"], "group_id"]) == {"v01"}
    assert report(layout, "source")["copies"] == report(layout, "target")["copies"] == 1


def test_copies_and_groups_that_cross_a_given_split_are_refused(tmp_path: Path) -> None:
    target = parts(features(100, 50, 1), "train", "train", "train", "val", "test")
    target[0]["audio"] = target[4]["audio"]  # train, a copy of test; its video stays
    target[51]["split"] = "test"  # the other row of a train video
    layout = run(tmp_path, target=target)
    assert refusals(layout) == [
        ("target", 1, "r000", "a copy also stands in a more protected split, as r004"),
        ("target", 2, "r001", "group also stands in a more protected split, as r051"),
    ]
    rows = read_scored(layout, "target")
    assert (rows["group_id"]["r050"], rows["split"]["r050"]) == ("v00", "train")
    assert rows.groupby("group_id")["split"].nunique().max() == 1
    assert report(layout, "target")["refused"] == {
        "rows": 2,
        "a copy also stands in a more protected split": 1,
        "group also stands in a more protected split": 1,
    }


def test_copies_that_a_row_without_a_score_links_cross_a_given_split_too(tmp_path: Path) -> None:
    """Of three texts in a row each is near the next one, and the first is not near the last."""
    words = [f"word{at}" for at in range(70)]
    chain = [" ".join(words[at : at + 60]) for at in (0, 4, 8)]
    target = parts(features(100, 50, 1), "train", "train", "train", "val", "test")
    target[0]["text"], target[4]["text"] = chain[0], chain[2]
    layout = run(tmp_path, target=target)
    assert refusals(layout) == []
    free = features(1, 1, 2, id="u0", group="w0", score=None, text=chain[1])
    layout = run(tmp_path, target=target + free)
    assert refusals(layout) == [
        ("target", 1, "r000", "a copy also stands in a more protected split, as r004"),
        ("target", 101, "u0", "no score, and its group is in the test part"),
    ]


def test_groups_of_which_rows_are_copies_are_one(tmp_path: Path) -> None:
    """Where groups are averaged, what they share is no longer in their means or in all of their words."""
    target = [row | {"text": WORDS[at]} for at, row in enumerate(features(60, 20, 1))]
    target[1]["text"] = WORDS[22]  # of v01 and v02
    target[3]["audio"] = target[24]["audio"]  # of v03 and v04
    layout = run(tmp_path, params(target={"level": "group"}), target=target)
    rows = read_scored(layout, "target")
    assert len(rows) == 20
    assert rows["group_id"][["v01", "v02", "v03", "v04", "v05"]].tolist() == ["v01", "v01", "v03", "v03", "v05"]
    assert rows["given_group"].tolist() == rows.index.tolist()


def test_unlabelled_rows_are_met_unless_their_group_is_scored(tmp_path: Path) -> None:
    free = [row | {"id": f"u{at}", "group": f"w{at}", "score": None} for at, row in enumerate(features(6, 6, 2))]
    free[1]["group"] = "v04"  # a test video under holdout
    free[2]["group"] = "v00"  # a train video
    target = features(40, 20, 1)
    free[3]["audio"] = target[4]["audio"]  # a copy of a test row
    layout = run(tmp_path, target=target + free)
    rows = read_scored(layout, "target")
    assert rows.index[rows["split"] == "unlabelled"].tolist() == ["u0", "u4", "u5"]
    assert np.isnan(rows["score"]["u0"])
    assert set(folds(layout)["sample_id"]) == {row["id"] for row in target}
    reason = "no score, and its group has rows with one"
    assert refusals(layout) == [("target", 40 + at, f"u{at - 1}", reason) for at in (2, 3, 4)]

    given = parts(target, "train", "train", "train", "val", "test") + free
    layout = run(tmp_path, target=given)
    rows = read_scored(layout, "target")
    assert rows.index[rows["split"] == "unlabelled"].tolist() == ["u0", "u2", "u4", "u5"]
    assert {identity for _, _, identity, _ in refusals(layout)} == {"u1", "u3"}
    assert rows.loc["u2", "group_id"] == "v00"


def test_a_group_is_one_however_its_rows_spell_its_name(tmp_path: Path) -> None:
    rows = features(60, 60)
    target = [row | {"group": f"speaker {at // 2}"} for at, row in enumerate(rows)]
    target = [row | {"group": str(row["group"]).upper() + " "} if at % 2 else row for at, row in enumerate(target)]
    given = [row | {"split": ("train", "val", "test")[at // 20]} for at, row in enumerate(target)]
    given[2] |= {"split": "test"}
    layout = run(tmp_path, target=given)
    assert refusals(layout) == [("target", 4, "r003", "group also stands in a more protected split, as r002")]
    assert read_scored(layout, "target").groupby("group_id")["split"].nunique().max() == 1
    # A row without a score goes with its group, and words of a row stay in its part.
    free = {**rows[0], "id": "u", "score": None, "group": "SPEAKER 0"}
    source = [
        row | {"text": WORDS[at], "group": f"old {of['group']}"}
        for at, (row, of) in enumerate(zip(rows, target, strict=True))
    ]
    table(tmp_path / "texts.parquet", [row | {"group": f"@{row['group']}"} for row in source])
    settings = params(source={"texts": "texts.parquet"})
    layout = run(tmp_path, settings, target=[*given, free], source=source)
    assert read_scored(layout, "target").loc[["u", "r000"], "group_id"].nunique() == 1
    assert read_scored(layout, "source_texts")["split"].equals(read_scored(layout, "source")["split"])


def test_source_rows_need_a_score(tmp_path: Path) -> None:
    source = features(60, 60)
    source[7]["score"] = None
    layout = run(tmp_path, source=source)
    assert "r007" not in read_scored(layout, "source").index
    assert ("source", 8, "r007", "no score") in refusals(layout)


def test_groups_are_averaged_where_asked(tmp_path: Path) -> None:
    target = parts(features(60, 20, 1), "train", "train", "train", "val", "test")
    layout = run(tmp_path, params(target={"level": "group"}), target=target)
    rows = read_scored(layout, "target")
    assert rows.index.tolist() == rows["group_id"].tolist() == [f"v{at:02d}" for at in range(20)]
    assert rows.loc["v03", "score"] == pytest.approx(np.mean([target[at]["score"] for at in (3, 23, 43)]))
    assert rows["split"].value_counts().to_dict() == {"train": 12, "val": 4, "test": 4}


def test_words_of_the_source_stay_in_the_parts_of_their_rows(tmp_path: Path) -> None:
    source = [row | {"text": WORDS[at]} for at, row in enumerate(features(60, 30))]
    layout = run(tmp_path, source=source)
    rows, texts = read_scored(layout, "source"), read_scored(layout, "source_texts")
    assert texts["text"].tolist() == WORDS[:60]
    assert texts["split"].equals(rows["split"])
    # At the level of groups the words are still one by one.
    layout = run(tmp_path, params(source={"level": "group"}), source=source)
    assert len(read_scored(layout, "source")) == 30
    assert len(read_scored(layout, "source_texts")) == 60


def test_rows_that_the_split_leaves_out_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, target=parts(features(40, 20, 1), "Train", "train", "train", "Valid", "Eval"))
    said = "rows are left out, since the split column says 8 x 'eval', not train, val or test; none is marked test"
    assert f"split: target.parquet: {said}\n" in capsys.readouterr().err
    run(tmp_path, target=parts(features(40, 20, 1), "train", "train", "train", "val", "test"))
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize("given", [False, True])
def test_groups_that_the_source_learns_from_are_not_scored_and_split_says_so(tmp_path: Path, given: bool) -> None:
    target = features(40, 20, 1)
    names = dict(zip([f"v{at:02d}" for at in range(5)], ["s00", "S01", "s02", "s03", "s04"], strict=True))
    target = [row | {"group": names.get(row["group"], row["group"])} for row in target]
    if given:
        target = [row | {"split": "train" if int(row["group"][1:]) > 2 else "test"} for row in target]
    source = [row | {"split": "train" if at < 50 else "test"} for at, row in enumerate(features(60, 60))]
    with pytest.raises(InputError) as caught:
        run(tmp_path, source=source, target=target)
    named = "3 groups" if given else "5 groups"
    assert f"target.parquet: {named} of its rows to be scored have the names of groups of" in str(caught.value)
    assert "(S01, s00, s02" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_words_of_the_source_that_are_not_named_as_its_words_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = [row | {"text": WORDS[at]} for at, row in enumerate(features(60, 30))]
    table(tmp_path / "other.parquet", features(60, 30))
    run(tmp_path, params(source={"texts": "other.parquet"}), source=source)
    told = "source.parquet holds words and other.parquet none, so no text encoder is tuned on them; "
    assert f"split: {told}source.texts=source.parquet tunes it\n" in capsys.readouterr().err
    run(tmp_path, source=source)
    assert "source.texts" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "corpora", "message"),
    [
        ({}, {"target": features(4, 4)}, "4 groups have a score, too few for target.folds 4; set it to at most 2"),
        ({}, {"target": [row | {"score": None} for row in features(9, 9)]}, "no row has a score"),
        ({}, {"target": [row | {"score": 1.0} for row in features(9, 9)]}, "all training rows have the score 1.0"),
        ({}, {"target": [row | {"score": at * 1e-8} for at, row in enumerate(features(9, 9))]},
         "the scores of the training rows differ by 3e-08 (standard deviation), and figures are kept to six decimals; "
         "multiply all scores, of both corpora alike, by 100,000,000"),
        ({}, {"source": parts(features(8, 2), "train", "test")},
         "source.parquet: no row is left for val"),
        ({}, {"source": features(8, 2)},
         "source.parquet: 2 groups have a score, and train, val and test need one each"),
        ({}, {"source": [row | {"text": "they all said the same nine words to him"} for row in features(9, 9)]},
         "source.parquet: 1 group has a score, 9 before those with copies of each other were joined (where all say"),
        ({}, {"source": [row | {"score": None} if at < 9 else row for at, row in enumerate(features(60, 60))]},
         "source.parquet: 9 of 60 rows refused (9 x no score), more than split.max_refused_share 0.05"),
        ({}, {"source": [row | {"audio": None, "text": WORDS[at]} for at, row in enumerate(features(60, 60))]},
         "target.parquet: its modalities audio and those of"),
        ({"modalities": ["audio", "visual"]}, {}, "target.modalities asks for visual, and the corpus has audio"),
        ({"corpus": "gone.parquet"}, {}, "not found; set target.corpus"),
    ],
)  # fmt: skip
def test_corpora_that_cannot_be_used_stop_in_one_line(
    tmp_path: Path, settings: dict[str, Any], corpora: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, params(target=settings), **corpora)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()
