"""A message is a line, whatever it names, and comes whole from a worker process."""

import pytest

from pipeline.core.errors import DamagedError, InputError
from pipeline.core.parallel import in_processes

ERRORS = (InputError("a: one", "b: two"), DamagedError("m: is damaged", "run it again"))


def test_what_strangers_wrote_makes_no_line_of_its_own() -> None:
    assert str(InputError("m.csv: has the column a\r\nerror: b\x1b[2J")) == "m.csv: has the column a error: b\\x1b[2J"


def test_several_things_that_are_wrong_are_a_line_each() -> None:
    assert str(InputError("a: one\ntwo", "b: three")) == "a: one two\nb: three"


def made(at: int) -> InputError:
    return ERRORS[at]


def raised(at: int) -> None:
    raise ERRORS[at]


def test_an_error_comes_whole_from_another_process() -> None:
    for error, again in zip(ERRORS, in_processes(made, range(len(ERRORS)), 2, "errors"), strict=True):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_an_error_ends_the_work_as_what_it_is() -> None:
    with pytest.raises(DamagedError, match="m: is damaged; run it again"):
        list(in_processes(raised, (1, 1), 2, "errors"))
