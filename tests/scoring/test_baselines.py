import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from pipeline.core.folds import Fold
from pipeline.scoring import baselines, emotion
from pipeline.scoring.baselines import Baseline, BaselineTrainingSet


def vectors(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that lie apart in the last two columns, behind columns of very different scales."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, size=rows, p=[0.7, 0.2, 0.1])
    apart = 0.01 * (np.array([[0, 2], [2, 0], [-2, -2]])[labels] + generator.normal(size=(rows, 2)))
    noise = 100 * generator.normal(size=(rows, 5))
    return np.hstack([noise, np.ones((rows, 1)), apart]).astype(np.float32), labels


def texts(rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, size=rows)
    words = (("not good", "not great"), ("so good", "really great"), ("good \N{FIRE}", "great \N{FIRE}"))
    filler = ("me rn", "when it rains", "today")
    return [f"{generator.choice(filler)} {generator.choice(words[label])}" for label in labels], labels


def judged_by_val(a: np.ndarray, b: np.ndarray, classes: int = 3) -> BaselineTrainingSet:
    """Rows of the codes ``a`` to learn from and ``b`` to choose by, if any."""
    at = np.arange(len(a) + len(b))
    return BaselineTrainingSet(np.concatenate([a, b]), len(a), classes, [Fold(at[: len(a)], at[len(a) :])])


def on_vectors(train: np.ndarray, val: np.ndarray, test: np.ndarray, a: np.ndarray, b: np.ndarray) -> Baseline:
    """The baseline on vectors of three classes, ``a`` those of the training rows and ``b`` those for choosing."""
    return baselines.embeddings_logreg(judged_by_val(a, b), np.concatenate([train, val]), [test])


def on_texts(train: list[str], val: list[str], test: list[str], a: np.ndarray, b: np.ndarray) -> Baseline:
    return baselines.tfidf_logreg(judged_by_val(a, b), [*train, *val], [test])


def test_majority_gives_the_class_shares_of_the_rows_learned_from():
    made = baselines.majority(judged_by_val(np.array([1, 1]), np.array([1, 0])), test_rows=5)
    assert made.test.shape == (5, 3)
    assert emotion.softmax(made.test)[0] == pytest.approx([0.25, 0.75, 0.0], abs=1e-6)
    assert made.held.argmax(axis=1).tolist() == [1, 1]


def test_embeddings_are_standardised_and_classes_told_apart():
    (train, a), (val, b), (test, c) = (vectors(rows, seed) for seed, rows in enumerate((600, 200, 400)))
    made = on_vectors(train, val, test, a, b)
    assert emotion.macro_f1(c, made.test.argmax(axis=1), 3) > 0.8
    assert np.exp(made.test).sum(axis=1) == pytest.approx(np.ones(400))
    assert set(made.settings) == {"C", "class_weight"}


def test_words_pairs_of_words_and_emoji_are_told_apart():
    (train, a), (val, b), (test, c) = (texts(rows, seed) for seed, rows in enumerate((150, 60, 60)))
    made = on_texts(train, val, test, a, b)
    assert emotion.macro_f1(c, made.test.argmax(axis=1), 3) == 1.0


def test_the_held_rows_choose_and_the_test_rows_do_not_matter():
    (train, a), (val, b), (test, _) = (vectors(rows, seed) for seed, rows in enumerate((300, 100, 50)))
    made = on_vectors(train, val, test, a, b)
    chosen = emotion.macro_f1(b, made.held.argmax(axis=1), 3)
    other = on_vectors(train, val, test[:1] + 5, a, b)
    assert other.settings == made.settings
    assert np.array_equal(other.held, made.held)
    assert chosen > 0.7


def test_folds_choose_as_a_search_over_them_does():
    (rows, codes), (test, _) = vectors(120, 0), vectors(50, 1)
    folds = list(StratifiedKFold(3).split(rows, codes))
    made = baselines.embeddings_logreg(
        BaselineTrainingSet(codes, 100, 3, [Fold(*rows_of) for rows_of in folds]), rows.copy(), [test]
    )
    mean, spread = rows[:100].mean(axis=0), rows[:100].std(axis=0)
    scaled = (rows - mean) / np.where(spread > 1e-6, spread, 1)
    scores = {}
    for strength in baselines.EMBEDDINGS_C:
        for weight in ("none", "balanced"):
            model = LogisticRegression(C=strength, class_weight=None if weight == "none" else weight, max_iter=200)
            scores[strength, weight] = f1_score(
                codes, cross_val_predict(model, scaled, codes, cv=folds), average="macro"
            )
    assert scores[made.settings["C"], made.settings["class_weight"]] == max(scores.values())
    order = np.concatenate([held for _, held in folds])
    assert emotion.macro_f1(codes[order], made.held.argmax(axis=1), 3) == pytest.approx(max(scores.values()))


def test_the_same_rows_give_the_same_numbers():
    (train, a), (val, b) = vectors(300, 0), vectors(100, 1)
    first, second = (on_vectors(train, val, val, a, b) for _ in range(2))
    assert np.array_equal(first.test, second.test)
    (train, a), (val, b) = texts(100, 0), texts(50, 1)
    first, second = (on_texts(train, val, val, a, b) for _ in range(2))
    assert np.array_equal(first.test, second.test)


def test_test_rows_in_parts_are_those_in_one_piece():
    (train, a), (val, b), (test, _) = vectors(100, 0), vectors(50, 1), vectors(40, 2)
    learned, rows = judged_by_val(a, b), np.concatenate([train, val])
    parts = baselines.embeddings_logreg(learned, rows, [test[:7], test[7:7], test[7:]])
    assert np.allclose(parts.test, on_vectors(train, val, test, a, b).test, rtol=1e-6)
    (train, a), (val, b), (test, _) = texts(100, 0), texts(50, 1), texts(40, 2)
    learned = judged_by_val(a, b)
    parts, whole = (baselines.tfidf_logreg(learned, [*train, *val], of) for of in ([test[:7], test[7:]], [test]))
    assert np.allclose(parts.test, whole.test, rtol=1e-9)


def test_a_class_without_training_rows_is_never_predicted_and_keeps_its_column():
    (train, a), (val, b), (test, _) = vectors(200, 0), vectors(100, 1), vectors(100, 2)
    made = on_vectors(train[a != 1], val[b != 1], test, a[a != 1], b[b != 1])
    assert made.test.shape == (100, 3)
    assert set(made.test.argmax(axis=1)) == {0, 2}
    assert np.isfinite(made.test).all()


def test_the_validation_rows_choose_and_are_then_learned_from():
    (train, a), (val, b), (test, _) = vectors(30, 0), vectors(300, 1), vectors(200, 2)
    made = on_vectors(train, val, test, a, b)
    again = on_vectors(np.concatenate([train, val]), val, test, np.concatenate([a, b]), b)
    alone = on_vectors(train, train, test, a, a)
    assert made.test.argmax(axis=1).tolist() != alone.test.argmax(axis=1).tolist()
    assert (made.test.argmax(axis=1) == again.test.argmax(axis=1)).mean() > 0.95


@pytest.mark.parametrize("labels", [pytest.param([2, 2], id="one class"), pytest.param([2, 2, 0], id="no words")])
def test_what_cannot_be_fitted_falls_back_to_the_majority(labels: list[int]):
    train = ["a", "b"] if len(labels) == 2 else ["", " ", "\n"]
    learned = judged_by_val(np.array(labels), np.array([2]))
    made = baselines.tfidf_logreg(learned, [*train, "x"], [["y"], ["z"]])
    assert made.test.argmax(axis=1).tolist() == [2, 2]


def test_a_fold_that_learns_of_one_class_holds_by_its_share():
    learned = BaselineTrainingSet(np.array([2, 2, 0, 2]), 4, 3, [Fold(np.array([0, 1]), np.array([2, 3]))])
    made = baselines.tfidf_logreg(learned, ["a b", "a c", "d", "e"], [["a"]])
    assert np.exp(made.held) == pytest.approx(np.array([[0, 0, 1], [0, 0, 1]]), abs=1e-6)


def test_two_classes_work():
    (train, a), (test, c) = texts(80, 0), texts(40, 1)
    made = baselines.tfidf_logreg(judged_by_val(a % 2, c % 2, 2), [*train, *test], [test])
    assert made.test.shape == (40, 2)
    assert emotion.macro_f1(c % 2, made.test.argmax(axis=1), 2) == 1.0
