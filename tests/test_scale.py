"""The simulation behind ``docs/scale.md`` against what can be worked out by hand."""

import pytest

from benchmarks import scale
from benchmarks.scale import CHUNK, STEADY, Step, simulate


def test_one_worker_takes_the_sum_and_two_half_of_it() -> None:
    assert simulate([Step("a", 0.5, 1)], 10 * CHUNK)[0] == pytest.approx(10 * CHUNK * 0.5)
    assert simulate([Step("a", 0.5, 2)], 10 * CHUNK)[0] == pytest.approx(5 * CHUNK * 0.5)


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_a_line_is_as_fast_as_its_slowest_step_after_the_first_chunk(slow: int) -> None:
    seconds = [0.1, 0.1, 0.1]
    seconds[slow] = 0.3
    steps = [Step(str(at), of, 1) for at, of in enumerate(seconds)]
    took, busy = simulate(steps, 50 * CHUNK)
    assert took == pytest.approx(CHUNK * (sum(seconds) + 49 * 0.3))
    assert max(busy, key=lambda name: busy[name]) == str(slow)
    assert busy[str(slow)] == pytest.approx(50 * 0.3 / (0.5 + 49 * 0.3))


def test_many_workers_behind_one_that_reads_are_all_fed() -> None:
    steps = [Step("read", 1e-4, 1), Step("encode", 16e-3, 16), Step("write", 1e-5, 1)]
    took, busy = simulate(steps, 1000 * CHUNK)
    assert took == pytest.approx(1000 * CHUNK * 1e-3, rel=0.05)
    assert busy["encode"] > 0.95


def test_beyond_what_is_simulated_time_grows_by_the_rate_of_the_slowest() -> None:
    steps = [Step("a", 1e-3, 1), Step("b", 4e-3, 2)]
    took, _ = simulate(steps, 3 * STEADY * CHUNK)
    assert took == pytest.approx(3 * STEADY * CHUNK * 2e-3, rel=1e-3)


def test_the_measured_runs_come_out_and_wrong_rates_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scale", "--posts", "1000000", "100000000"])
    assert scale.main() == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| 1")]
    assert len(rows) == 2 * len(scale.MACHINES)
    monkeypatch.setattr(scale, "CPU_SECONDS", {name: 2 * of for name, of in scale.CPU_SECONDS.items()})
    assert scale.main() == 1
    assert "the rates do not give the measured runs" in capsys.readouterr().err
