"""A sample of the wrong inputs; ``python -m tests.robustness.bad_inputs`` tries all."""

from pathlib import Path

import pytest

from tests.robustness.bad_inputs import Case, cases, outcome

CASES = list(cases())


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_a_wrong_input_gets_its_line(case: Case, tmp_path: Path) -> None:
    assert outcome(case, tmp_path) is None


def test_there_are_cases_of_every_kind() -> None:
    assert len(CASES) >= 300
    assert len({str(case) for case in CASES}) == len(CASES)
