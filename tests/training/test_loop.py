import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.core.errors import InputError
from pipeline.nets.losses import Objective, ccc_loss, mixed
from pipeline.training import loop
from pipeline.training.checkpoint import resume_state
from pipeline.training.loop import FitResult, TrainingPlan, fit, predict
from pipeline.training.optim import adamw, warm_up
from pipeline.training.rows import TensorRows

CPU = torch.device("cpu")


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def rows(count: int, seed: int, batch: int = 16) -> TensorRows:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    return TensorRows((inputs,), (inputs[:, 0] + 0.3 * inputs[:, 1] > 0).long(), batch)


def net(dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 2))


def run(model: nn.Module, plan: TrainingPlan, **more) -> FitResult:
    return fit(
        model,
        more.pop("train", rows(100, 1)),
        more.pop("val", rows(50, 2)),
        objective=functional.cross_entropy,
        score=more.pop("score", accuracy),
        optimizer=adamw([(model, more.pop("rate", 0.01))], 0.01),
        plan=plan,
        device=CPU,
        what="test",
        **more,
    )


def test_it_learns_and_keeps_the_best_epoch() -> None:
    model = net()
    fit_result = run(model, TrainingPlan(epochs=20, patience=20, seed=0))
    scores = [line["val_score"] for line in fit_result.history]
    assert fit_result.best_score == max(scores) > 0.9
    assert accuracy(predict(model, rows(50, 2), CPU), rows(50, 2).labels.numpy()) == fit_result.best_score
    assert fit_result.history[fit_result.best_epoch - 1]["val_score"] == fit_result.best_score


def test_without_a_row_to_stop_on_it_runs_on_and_keeps_the_last_epoch() -> None:
    empty, none = net(), net()
    known = run(empty, TrainingPlan(epochs=4, patience=1, seed=0), val=rows(0, 2))
    assert known == run(none, TrainingPlan(epochs=4, patience=1, seed=0), val=None)
    assert (known.best_epoch, len(known.history)) == (4, 4)
    for name, value in none.state_dict().items():
        assert torch.equal(empty.state_dict()[name], value)
        assert not torch.equal(net().state_dict()[name], value)


def test_it_stops_after_patience() -> None:
    scores = iter([0.1, 0.5, 0.4, 0.4, 0.4, 0.9])
    fit_result = run(net(), TrainingPlan(epochs=6, patience=3, seed=0), score=lambda logits, labels: next(scores))
    assert (fit_result.best_epoch, fit_result.best_score, len(fit_result.history)) == (2, 0.5, 5)


def test_the_same_seed_gives_the_same_weights() -> None:
    models = [net() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        run(model, TrainingPlan(epochs=2, patience=5, seed=seed))
    first, same, other = (torch.cat([value.flatten() for value in model.state_dict().values()]) for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_one_step_without_dropout_is_adamw_by_hand() -> None:
    model, by_hand = nn.Linear(4, 2), nn.Linear(4, 2)
    by_hand.load_state_dict(model.state_dict())
    train = rows(16, 3)
    run(model, TrainingPlan(epochs=1, patience=1, seed=0, clip=1e9), train=train)
    optimizer = torch.optim.AdamW(
        [{"params": [by_hand.weight], "weight_decay": 0.01}, {"params": [by_hand.bias], "weight_decay": 0.0}], lr=0.01
    )
    inputs = train.inputs[0]
    assert isinstance(inputs, torch.Tensor)
    functional.cross_entropy(by_hand(inputs), train.labels).backward()
    optimizer.step()
    torch.testing.assert_close(model.weight, by_hand.weight)
    torch.testing.assert_close(model.bias, by_hand.bias)


def test_a_penalty_moves_the_weights_and_is_not_reported() -> None:
    model, by_hand = nn.Linear(4, 2), nn.Linear(4, 2)
    by_hand.load_state_dict(model.state_dict())
    train = rows(16, 3)
    plan = TrainingPlan(epochs=1, patience=1, seed=0, accumulate=2, clip=1e9)
    fit_result = fit(
        model,
        train,
        rows(50, 2),
        objective=functional.cross_entropy,
        score=accuracy,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        plan=plan,
        device=CPU,
        what="test",
        penalty=lambda: 3 * model.weight.square().sum(),
    )
    loss = functional.cross_entropy(by_hand(train.inputs[0]), train.labels)
    loss.backward()
    assert fit_result.history[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert by_hand.weight.grad is not None and by_hand.bias.grad is not None
    torch.testing.assert_close(
        model.weight, by_hand.weight - 0.1 * (by_hand.weight.grad + 6 * by_hand.weight), atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(model.bias, by_hand.bias - 0.1 * by_hand.bias.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("slope", "rate"), [(0.0, 0.25), (-1.0, 1.0)])
def test_the_learning_rate_falls_where_the_validation_loss_stays(slope: float, rate: float) -> None:
    """A loss that stays is the best in epoch 1, and twice no better in epochs 3 and 5."""
    model, validated = nn.Linear(4, 2), 0

    def objective(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal validated
        validated += not logits.requires_grad
        return logits.sum() * 0 + 9 + slope * validated

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    fit(
        model,
        rows(16, 1),
        rows(16, 2),
        objective=objective,
        score=accuracy,
        optimizer=optimizer,
        plan=TrainingPlan(epochs=6, patience=6, seed=0, plateau=(0.5, 1)),
        device=CPU,
        what="test",
    )
    assert validated == 6
    assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize("accumulate", [2, 3, 16])
def test_accumulation_gives_the_same_weights(accumulate: int) -> None:
    whole, parts = net(dropout=0.0), net(dropout=0.0)
    one = run(whole, TrainingPlan(epochs=3, patience=5, seed=0))
    two = run(parts, TrainingPlan(epochs=3, patience=5, seed=0, accumulate=accumulate))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    assert [line["train_loss"] for line in one.history] == pytest.approx([line["train_loss"] for line in two.history])


@pytest.mark.parametrize("accumulate", [2, 5])
@pytest.mark.parametrize("objective", [mixed(0.3, 1.0, 0.3), ccc_loss], ids=["mixed", "ccc"])
def test_a_correlation_is_that_of_the_whole_batch_however_it_is_split(objective: Objective, accumulate: int) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(24, 4, generator=generator), torch.randn(24, generator=generator)
    whole, parts = nn.Linear(4, 1), nn.Linear(4, 1)
    parts.load_state_dict(whole.state_dict())
    for model, pieces in ((whole, 1), (parts, accumulate)):
        fit(
            model,
            TensorRows((inputs,), labels, 24),
            TensorRows((inputs,), labels, 24),
            objective=objective,
            score=lambda scores, wanted: 0.0,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            plan=TrainingPlan(epochs=3, patience=None, seed=0, accumulate=pieces, clip=1e9),
            device=CPU,
            what="test",
        )
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(parts.bias, whole.bias, atol=1e-6, rtol=1e-5)


def test_both_passes_over_a_split_batch_drop_the_same() -> None:
    """What is not linear in the outputs would otherwise be the gradient of other outputs than the loss was of."""
    hidden: list[torch.Tensor] = []
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    model[1].register_forward_hook(lambda module, given, made: hidden.append(made.eq(0)) if module.training else None)
    run(model, TrainingPlan(epochs=1, patience=1, seed=0, accumulate=2), train=rows(16, 1))
    assert len(hidden) == 4 and torch.equal(hidden[0], hidden[2]) and torch.equal(hidden[1], hidden[3])
    assert not torch.equal(hidden[0], hidden[1])


def test_without_patience_all_epochs_count_and_the_last_weights_stay() -> None:
    scores = iter([0.9, 0.5, 0.1])
    kept, again = net(), net()
    fit_result = run(kept, TrainingPlan(epochs=3, patience=None, seed=0), score=lambda logits, labels: next(scores))
    assert (fit_result.best_epoch, fit_result.best_score, len(fit_result.history)) == (3, 0.1, 3)
    unseen = run(again, TrainingPlan(epochs=3, patience=None, seed=0), val=rows(0, 2))  # nor does it need others
    assert len(unseen.history) == 3 and math.isnan(unseen.best_score)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in kept.state_dict().items())


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [3, 7, 8, 20])
def test_a_killed_training_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    plan = TrainingPlan(epochs=4, patience=9, seed=5, warmup_share=0.2, decay=True)
    straight = net()
    expected = run(straight, plan)

    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    resume = resume_state(tmp_path, {"test": kill_at})
    calls = 0

    def step(*args):
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed
        return original(*args)

    original = loop._Training._step
    monkeypatch.setattr(loop._Training, "_step", step)
    model = net()
    with pytest.raises(Killed):
        run(model, plan, resume=resume)
    assert resume.path.exists()
    again = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 2))  # other initial weights
    actual = run(again, plan, resume=resume)
    assert calls == 4 * 7 + 1  # the killed step, and each other step once: nothing was done twice
    assert actual == expected
    for name, value in straight.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert not resume.path.exists()


@pytest.mark.parametrize("damage", [b"", b"x" * 100, b"\2\0\0\0\0\0\0\0{}"])
def test_a_damaged_state_is_said_and_not_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    plan, expected, model = TrainingPlan(epochs=2, patience=9, seed=5), net(), net()
    run(expected, plan)
    resume = resume_state(tmp_path, {})
    resume.path.parent.mkdir()
    resume.path.write_bytes(damage)
    run(model, plan, resume=resume)
    assert capsys.readouterr().err == f"{resume.path}: is damaged; that training begins anew\n"
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_another_identity_is_another_state(tmp_path: Path) -> None:
    assert resume_state(tmp_path, {"fold": 1}).path != resume_state(tmp_path, {"fold": 2}).path


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    train = rows(40, 1)
    assert isinstance(train.inputs[0], torch.Tensor)
    train.inputs[0][:] = math.inf
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="test: epoch 1, batch 1: the loss is nan"):
        run(model, TrainingPlan(epochs=1, patience=1, seed=0), train=train)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class ThreadedRows(TensorRows):
    workers = 2


def test_rows_loaded_by_threads_give_the_same_weights() -> None:
    plain, threaded = rows(100, 1), rows(100, 1)
    threaded.__class__ = ThreadedRows
    models = net(), net()
    for model, train in zip(models, (plain, threaded), strict=True):
        run(model, TrainingPlan(epochs=2, patience=2, seed=0), train=train)
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in models), strict=True))


def test_predictions_are_in_row_order_whatever_the_batches() -> None:
    model = nn.Linear(4, 2)
    shuffled = np.random.default_rng(0).permutation(33)

    class Shuffled(TensorRows):
        def batches(self, rng: np.random.Generator | None) -> list[np.ndarray]:
            return [shuffled[:20], shuffled[20:]]

    plain = rows(33, 1)
    data = Shuffled(plain.inputs, plain.labels, batch=8)
    inputs = data.inputs[0]
    assert isinstance(inputs, torch.Tensor)
    np.testing.assert_allclose(predict(model, data, CPU), model(inputs).detach().numpy(), atol=1e-6)


def test_warm_up_rises_then_falls_to_zero() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = warm_up(optimizer, 10, 0.2, decay=True)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25])
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_only_matrices_are_decayed() -> None:
    optimizer = adamw([(net(), 0.1)], 0.3)
    assert [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [(0.3, 2), (0.0, 2)]
