"""A message is a line, whatever it names, and comes whole from a worker process."""

import pickle

import pytest

from pipeline.core.errors import DamagedError, InputError


def test_what_strangers_wrote_makes_no_line_of_its_own() -> None:
    assert str(InputError("m.csv: has the column a\r\nerror: b\x1b[2J")) == "m.csv: has the column a error: b\\x1b[2J"


def test_several_things_that_are_wrong_are_a_line_each() -> None:
    assert str(InputError("a: one\ntwo", "b: three")) == "a: one two\nb: three"


@pytest.mark.parametrize("error", [InputError("a: one", "b: two"), DamagedError("m: is damaged", "run it again")])
def test_an_error_comes_whole_from_another_process(error: InputError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))
