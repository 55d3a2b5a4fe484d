"""Corpora that no setting was chosen on, from a package that anybody can fetch.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python -m benchmarks.unseen vaderSentiment-3.3.2.tar.gz FOLDER

The source distribution holds texts of four kinds whose sentiment twenty people rated from -4 to 4 (Hutto and Gilbert,
"VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014). Writes into FOLDER
what the pipeline reads, and says with which commands:

* ``tweets.csv`` and ``editorials.csv``: posts in three classes, negative below -1 and positive above 1; the lines of an
  article are a group;
* ``movies.parquet``: lines of film reviews and their scores, a source;
* ``few_tweets.parquet`` and ``reviews.parquet``: targets, a few tweets and the lines of product reviews.
"""

import argparse
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
KINDS = {
    "tweets": "tweets",
    "editorials": "nytEditorialSnippets",
    "movies": "movieReviewSnippets",
    "reviews": "amazonReviewSnippets",
}
EDGE = 1.0
"""Beyond it, on either side, a text is positive or negative."""
MOVIES, FEW_TWEETS = 2500, 300

COMMANDS = """\
dvc exp run -S 'tracks=[posts]' -S posts.manifest={0}/tweets.csv -S posts.media={0}
dvc exp run -S 'tracks=[posts]' -S posts.manifest={0}/editorials.csv -S posts.media={0}
dvc exp run -S 'tracks=[sentiment]' -S source.corpus={0}/movies.parquet -S source.texts={0}/movies.parquet \\
            -S target.corpus={0}/few_tweets.parquet
dvc exp run -S 'tracks=[sentiment]' -S source.corpus={0}/movies.parquet -S source.texts={0}/movies.parquet \\
            -S target.corpus={0}/reviews.parquet -S target.level=group -S 'finetune_e2e.curve=[]'"""


def rated(archive: Path) -> dict[str, pd.DataFrame]:
    """Of each kind ``id``, ``score``, ``text`` and, of what lines have in common, ``group``; nothing is unpacked."""
    with tarfile.open(archive) as outer:
        held = next((member for member in outer if member.name.endswith(INNER)), None)
        inner = None if held is None else outer.extractfile(held)
        if inner is None:
            raise SystemExit(f"{archive}: holds no {INNER}; give the source distribution of vaderSentiment")
        with tarfile.open(fileobj=BytesIO(inner.read())) as files:
            of = {Path(member.name).name: files.extractfile(member) for member in files if member.isfile()}
            return {name: _table((of[f"{file}_GroundTruth.txt"] or BytesIO()).read()) for name, file in KINDS.items()}


def _table(content: bytes) -> pd.DataFrame:
    lines = content.decode("utf-8", errors="replace").splitlines()
    table = pd.DataFrame([line.split("\t", 2) for line in lines], columns=["id", "score", "text"])
    return table.assign(score=table["score"].astype(float), group=table["id"].str.split("_").str[0])


def posts(table: pd.DataFrame) -> pd.DataFrame:
    """A manifest: classes instead of scores."""
    labels = np.select([table["score"] > EDGE, table["score"] < -EDGE], ["positive", "negative"], "neutral")
    return table[["id", "text", "group"]].assign(label=labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    tables, folder = rated(given.archive), given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tweets", "editorials"):
        posts(tables[name]).to_csv(folder / f"{name}.csv", index=False)
    corpus = ["id", "group", "score", "text"]
    movies, tweets = tables["movies"], tables["tweets"]
    movies.sample(MOVIES, random_state=1).sort_index()[corpus].to_parquet(folder / "movies.parquet", index=False)
    tweets.sample(FEW_TWEETS, random_state=2)[corpus].to_parquet(folder / "few_tweets.parquet", index=False)
    tables["reviews"][corpus].to_parquet(folder / "reviews.parquet", index=False)
    print(COMMANDS.format(folder))


if __name__ == "__main__":
    main()
