"""The corpora that `benchmarks.unseen` makes of a package, here of one that the test packs."""

import io
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import unseen


def packed(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def test_texts_become_posts_and_corpora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {
        "tweets": b"1\t2.5\tso lucky\n2\t-1.0\tcaf\xc3\xa9\tclosed \xff\n3\t-1.2\tbad\n4\t1.0\tfine\n",
        "nytEditorialSnippets": b"1_1\t0.4\tone\n1_2\t-3\ttwo\n2_1\t1.5\tthree\n",
        "movieReviewSnippets": b"7\t0.5\ta film\n8\t-0.5\tanother\n",
        "amazonReviewSnippets": b"1_1\t-0.9\tno picture\n",
    }
    inner = packed({f"hutto/{name}_GroundTruth.txt": content for name, content in lines.items()})
    archive, folder = tmp_path / "package.tar.gz", tmp_path / "corpora"
    archive.write_bytes(packed({f"package-1/{unseen.INNER}": inner}))
    monkeypatch.setattr(unseen, "MOVIES", 2)
    monkeypatch.setattr(unseen, "FEW_TWEETS", 3)
    monkeypatch.setattr(sys, "argv", ["unseen", str(archive), str(folder)])
    unseen.main()
    assert f"posts.manifest={folder}/tweets.csv" in capsys.readouterr().out
    tweets = pd.read_csv(folder / "tweets.csv", dtype=str)
    assert tweets["label"].tolist() == ["positive", "neutral", "negative", "neutral"]
    assert tweets["text"][1] == "café\tclosed �"
    editorials = pd.read_csv(folder / "editorials.csv", dtype=str)
    assert editorials[["id", "group", "label"]].values.tolist() == [
        ["1_1", "1", "neutral"],
        ["1_2", "1", "negative"],
        ["2_1", "2", "positive"],
    ]
    movies = pd.read_parquet(folder / "movies.parquet")
    assert movies.to_dict("list") == {
        "id": ["7", "8"],
        "group": ["7", "8"],
        "score": [0.5, -0.5],
        "text": ["a film", "another"],
    }
    assert len(pd.read_parquet(folder / "few_tweets.parquet")) == 3
    assert pd.read_parquet(folder / "reviews.parquet")["score"].tolist() == [-0.9]


def test_another_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.tar.gz").write_bytes(packed({"README": b""}))
    with pytest.raises(SystemExit, match=r"other\.tar\.gz: holds no .*; give the source distribution"):
        unseen.rated(tmp_path / "other.tar.gz")
