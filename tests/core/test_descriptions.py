import json
from pathlib import Path

import pytest

from pipeline.core.descriptions import FORMAT, FittedRows, ModelDescription, read_description, write_description
from pipeline.core.errors import InputError

DESCRIPTION = ModelDescription(stage="fuse", fitted=FittedRows(rows=5, digest="d"))


def changed(folder: Path, **keys: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def test_an_older_format_is_refused_with_the_command_that_renews_it(tmp_path: Path) -> None:
    write_description(tmp_path, DESCRIPTION)
    changed(tmp_path, format=1)
    message = rf"model.json: format 1, this version reads {FORMAT}; make it again with `dvc repro fuse`$"
    with pytest.raises(InputError, match=message):
        read_description(tmp_path, ModelDescription)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(InputError, match=r"format None, .* with `dvc repro`$"):
        read_description(tmp_path, ModelDescription)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"other": 1}, "other: Extra inputs are not permitted"),
        ({"fitted": {"rows": 5}}, "fitted.digest: Field required"),
        ({"seed": "many"}, "seed: Input should be a valid integer"),
    ],
)
def test_a_description_of_another_kind_is_refused_in_one_line(tmp_path: Path, keys: dict, message: str) -> None:
    write_description(tmp_path, DESCRIPTION)
    changed(tmp_path, **keys)
    with pytest.raises(InputError, match=message) as caught:
        read_description(tmp_path, ModelDescription)
    assert "\n" not in str(caught.value)


def test_arguments_are_the_values_by_name() -> None:
    assert FittedRows(rows=5, digest="d").arguments() == {"rows": 5, "digest": "d"}
