"""The choice between ridge and a net on small made sources, whose answer is known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.params import Params
from pipeline.scoring.dropout_ridge import dropout_ridge
from pipeline.scoring.ridge import ALPHAS
from pipeline.sentiment import source_candidates
from pipeline.sentiment.data import FeatureColumns
from pipeline.sentiment.source_candidates import SourceRows, choose, fit_final
from pipeline.training.loop import FitResult

WIDTHS = {"text": 4, "audio": 3}


def source(rows: int, *, product: bool = False, **block: Any) -> SourceRows:
    """A fifth for validation, a fifth for testing, three rows a group; the score is a sum, or a ``product``, of two
    columns of different modalities."""
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(rows, width)).astype(np.float32) for name, width in WIDTHS.items()}
    text, audio = vectors["text"][:, 0], vectors["audio"][:, 1]
    score = 2.0 * text * audio if product else text - audio
    groups = np.arange(rows) // 3
    table = pd.DataFrame(
        {
            "sample_id": [f"row_{at}" for at in range(rows)],
            "group_id": [f"g{group}" for group in groups],
            "split": np.select([groups % 5 == 0, groups % 5 == 1], ["val", "test"], "train"),
            "score": score + 0.3 * rng.normal(size=rows),
        }
    )
    present = dict.fromkeys(WIDTHS, torch.ones(rows, dtype=torch.bool))
    columns = FeatureColumns({name: torch.from_numpy(values) for name, values in vectors.items()}, present)
    params = {"width": 16, "heads": 2, "hidden": 16, "learning_rate": 3e-3, **block}
    return SourceRows(table, columns, Params.model_validate({"device": "cpu", "train_source": params}))


def test_a_sum_is_left_to_ridge() -> None:
    made = choose(source(300, epochs=5))
    assert made.report["taken"] == "ridge" and made.epochs == 0
    assert set(made.report["candidates"]) == {"ridge", "net"}


def test_a_product_of_two_modalities_needs_the_net() -> None:
    free = {"dropout": 0.0, "modality_dropout": 0.0, "weight_decay": 0.01}
    rows = source(900, product=True, epochs=20, patience=20, **free)
    made = choose(rows)
    assert made.report["taken"] == "net" and made.epochs > 1
    of = made.report["candidates"]
    assert of["net"]["mse"] < of["ridge"]["mse"] / 2
    net, test = fit_final(rows, made), rows.part("test")
    with torch.inference_mode():
        said = net(*rows.columns.at(test))[:, 0].numpy()
    assert np.corrcoef(said, rows.actual[test])[0, 1] > 0.8


def test_the_net_is_trained_for_the_epochs_of_least_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds that stop early are held to what they said last."""
    rows, trained = source(150, candidates=["net"], epochs=4), []
    offsets = {0: [0.9, 0.5, 0.1, 0.3], 1: [0.9, 0.8], 2: [0.9, 0.2, 0.3, 0.1]}
    folds = iter(offsets.values())

    def train(net: Any, of: SourceRows, learn: Any, epochs: int, held: Any = None, keep: Any = None) -> FitResult:
        if held is None:
            trained.append(epochs)
            return FitResult(epochs, 0.0, [])
        history = []
        for number, offset in enumerate(next(folds), 1):
            keep(of.actual[held] + offset)
            history.append({"epoch": number, "train_loss": 1.0, "val_loss": offset, "val_score": 0.0})
        return FitResult(1, 0.0, history)

    monkeypatch.setattr(source_candidates, "_train", train)
    made = choose(rows)
    assert made.epochs == made.report["epochs"] == 3 and len(made.history) == 4
    sizes = [len(fold.held_out) for fold in rows.folds()]
    errors = np.repeat([0.1, 0.8, 0.3], sizes) ** 2
    assert made.report["candidates"]["net"]["mse"] == pytest.approx(errors.mean())
    fit_final(rows, made)
    assert trained == [3]


def test_each_row_is_held_by_a_model_that_learned_from_other_groups() -> None:
    rows = source(150, candidates=["ridge"])
    made = choose(rows)
    assert sorted(made.rows) == sorted(rows.part("train", "val"))
    for fold in rows.folds():
        assert not set(rows.groups[fold.train]) & set(rows.groups[fold.held_out])
        blocks = [values.numpy() for _, values in sorted(rows.columns.vectors.items())]
        mean = [block[fold.train].mean(axis=0) for block in blocks]
        spread = [block[fold.train].std(axis=0) for block in blocks]
        blocks = [((b - m) / s).clip(-5, 5) for b, m, s in zip(blocks, mean, spread, strict=True)]
        learn, held = ([block[at] for block in blocks] for at in (fold.train, fold.held_out))
        (model,) = dropout_ridge(learn, rows.actual[fold.train], [made.penalty], 0.3)
        at = {row: place for place, row in enumerate(made.rows)}
        np.testing.assert_allclose(made.held[[at[row] for row in fold.held_out]], model.scores(held), atol=1e-4)


def test_the_penalty_is_the_one_of_least_error_on_held_rows() -> None:
    rows = source(45, candidates=["ridge"])
    rows.table["score"] += 2.0 * np.random.default_rng(1).normal(
        size=45
    )  # so that neither end of the penalties is best
    errors = dict.fromkeys(ALPHAS, 0.0)
    for fold in rows.folds():
        blocks = [values.numpy().astype(np.float64) for _, values in sorted(rows.columns.vectors.items())]
        learned = [block[fold.train] for block in blocks]
        blocks = [((b - of.mean(axis=0)) / of.std(axis=0)).clip(-5, 5) for b, of in zip(blocks, learned, strict=True)]
        models = dropout_ridge([block[fold.train] for block in blocks], rows.actual[fold.train], list(ALPHAS), 0.3)
        for penalty, model in zip(ALPHAS, models, strict=True):
            said = model.scores([block[fold.held_out] for block in blocks])
            errors[penalty] += float(((said - rows.actual[fold.held_out]) ** 2).sum())
    best = min(errors, key=lambda penalty: errors[penalty])
    assert min(ALPHAS) < best < max(ALPHAS)
    made = choose(rows)
    assert made.penalty == pytest.approx(best)
    assert made.report["candidates"]["ridge"]["mse"] == pytest.approx(errors[best] / len(made.rows), rel=1e-4)


def test_ridge_is_what_the_net_says() -> None:
    rows = source(150, candidates=["ridge"])
    made = choose(rows)
    net, learn = fit_final(rows, made), np.sort(rows.part("train", "val"))
    names = sorted(WIDTHS)
    blocks = [net.probe(name).standard(rows.columns.vectors[name]).numpy() for name in names]
    (model,) = dropout_ridge([block[learn] for block in blocks], rows.actual[learn], [made.penalty], 0.3)
    with torch.inference_mode():
        said = net(*rows.columns.at(np.arange(150)))[:, 0].numpy()
    np.testing.assert_allclose(said, model.scores(blocks), atol=1e-5)


def test_of_many_rows_the_validation_rows_are_judges() -> None:
    rows = source(150, candidates=["ridge"], inner_rows=100)
    assert sorted(choose(rows).rows) == sorted(rows.part("val"))


def test_a_single_group_is_one_clear_line() -> None:
    rows = source(60)
    rows.table.loc[rows.table["split"] != "test", "group_id"] = "one"
    with pytest.raises(InputError, match=r"48 training and validation rows are of one group.*give more groups") as one:
        choose(rows)
    assert "\n" not in str(one.value)


@pytest.mark.parametrize("candidates", [["ridge"], ["net"]])
def test_only_what_is_asked_for_stands(candidates: list[str]) -> None:
    made = choose(source(150, epochs=2, candidates=candidates))
    assert list(made.report["candidates"]) == candidates == [made.report["taken"]]
    assert (made.epochs > 0) == (candidates == ["net"]) == (len(made.history) > 0)
