"""Few posts: the text specialist that inner folds choose, against what twenty lines of scikit-learn give.

    python -m benchmarks.few_posts manifest.parquet [--sizes 100,300,700,2000] [--draws 5] [--ask val|rest]

Draws so many training texts from a manifest with a split, and scores on all of its validation texts, or, with ``rest``,
on all texts whose group was not drawn from: where validation texts are few, these tell smaller differences. The obvious
is scikit-learn's own logistic regression, with and without balanced classes, on the same frozen vectors and on TF-IDF;
its best is not known beforehand, so all four are shown. Only candidates that leave the encoder as it is are tried.
Prints a line of Markdown a size: macro-F1, mean over the draws, and the difference with its standard error.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pipeline.core.artifacts import Embeddings
from pipeline.encoders import text
from pipeline.params import EmbedTextParams
from pipeline.posts.candidates import LINEAR, fit_linear, try_linear
from pipeline.posts.folds import Grouping
from pipeline.posts.labels import codes_of
from pipeline.posts.specialist_rows import SpecialistRows
from pipeline.scoring import emotion, selection
from pipeline.training.finished import Finished

FOLDS = 5


def chosen(rows: SpecialistRows) -> tuple[str, np.ndarray]:
    """What the inner folds take, and the classes that it predicts for the test rows."""
    folds = rows.grouping.inner(FOLDS, len(rows.posts))
    tried = [of for name in LINEAR if (of := try_linear(name, rows, folds)) is not None]
    judged, codes = rows.grouping.judged(folds), rows.codes.numpy()
    choice = selection.choose(
        [of.name for of in tried],
        [of.logits[judged] for of in tried],
        codes[judged],
        rows.grouping.groups[judged],
    )
    taken = tried[choice.taken]
    logits = fit_linear(taken.name, rows, rows.grouping.whole(), taken.settings).logits
    return taken.name, choice.calibration.decide(choice.calibration.calibrated(logits))


def obvious(rows: SpecialistRows) -> Iterator[tuple[str, np.ndarray]]:
    """Twenty lines of scikit-learn: their names, and the classes that they predict for the test rows."""
    train, test, codes = rows.grouping.part("train"), rows.grouping.part("test"), rows.codes.numpy()
    tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    inputs = {
        "vectors": (rows.vectors[train], rows.vectors[test]),
        "TF-IDF": (tfidf.fit_transform(rows.texts(train)), tfidf.transform(rows.texts(test))),
    }
    for name, (known, unknown) in inputs.items():
        for balanced in (False, True):
            model = LogisticRegression(max_iter=1000, class_weight="balanced" if balanced else None)
            yield name + ", balanced" * balanced, model.fit(known, codes[train]).predict(unknown)


def draw(posts: pd.DataFrame, vectors: np.ndarray, size: int, seed: int, ask: str, scratch: Path) -> SpecialistRows:
    """So many of the training texts, and the texts to ask about as test rows; ``scratch`` keeps what is fitted."""
    train, test = (np.flatnonzero(posts["split"] == part) for part in ("train", "val"))
    drawn = np.random.default_rng(seed).choice(train, min(size, len(train)), replace=False)
    if ask == "rest":
        test = np.flatnonzero(~posts["group_id"].isin(posts["group_id"].iloc[drawn]))
    at = np.concatenate([drawn, test])
    some = posts.iloc[at].reset_index(drop=True)
    some["split"] = ["train"] * len(drawn) + ["test"] * len(test)
    labels = tuple(sorted(set(posts["label"])))
    codes = codes_of(some, labels)
    ids = some["sample_id"].to_numpy()
    given = Embeddings(ids, vectors[at], np.ones(len(at), dtype=bool), ids, {})
    return SpecialistRows(
        "text",
        some,
        given,
        vectors[at],
        torch.from_numpy(codes),
        labels,
        Grouping.of(some, codes, seed),
        alone=True,
        finished=Finished(scratch),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--sizes", default="100,300,700,2000")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--ask", choices=("val", "rest"), default="val")
    given = parser.parse_args()
    posts = pd.read_parquet(given.manifest).rename(columns={"id": "sample_id"})
    posts = posts[posts["text"].notna() & (posts["text"] != "")].reset_index(drop=True)
    posts["group_id"] = posts["group"] if "group" in posts else posts["sample_id"]
    sizes = [int(size) for size in given.sizes.split(",")]
    most = np.random.default_rng(0).permutation(np.flatnonzero(posts["split"] == "train"))[: 4 * max(sizes)]
    posts = posts.iloc[np.sort(np.concatenate([most, np.flatnonzero(posts["split"] == "val")]))].reset_index(drop=True)
    vectors = text.load(EmbedTextParams()).encode(posts["text"].tolist(), torch.device("cpu"))
    for size in sizes:
        lines = []
        taken = []
        for seed in range(given.draws):
            with tempfile.TemporaryDirectory() as scratch:
                rows = draw(posts, vectors, size, seed, given.ask, Path(scratch))
                actual = rows.codes.numpy()[rows.grouping.part("test")]
                name, predicted = chosen(rows)
                taken.append(name)
                said = {"chosen": predicted, **dict(obvious(rows))}
            lines.append({who: emotion.macro_f1(actual, of, len(rows.labels)) for who, of in said.items()})
        table = pd.DataFrame(lines)
        cells = [f"{table['chosen'].mean():.3f}"]
        for who in table.columns[1:]:
            difference = table["chosen"] - table[who]
            error = difference.std() / len(difference) ** 0.5
            cells.append(f"{table[who].mean():.3f} ({difference.mean():+.3f} ± {error:.3f})")
        counts = ", ".join(f"{name} {count}" for name, count in pd.Series(taken).value_counts().items())
        print(f"| {given.manifest.parent.name} | {size} | {' | '.join(cells)} | {counts} |", flush=True)


if __name__ == "__main__":
    main()
