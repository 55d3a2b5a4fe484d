"""``model.json``, typed: how a net is rebuilt, what it was made from, and which rows it was fitted on.

Every kind of model has a description of its own below its track; what all have in common stands here. Reading needs no
torch, so that `evaluate` can ask for the rows that a model has seen.
"""

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.core import artifacts
from pipeline.core.errors import InputError

FORMAT = 3
"""Version of ``model.json``; a reader refuses any other."""

NAME = "model.json"


class Described(BaseModel):
    """A part of a description: unknown keys and wrong types are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def arguments(self) -> dict[str, Any]:
        """The values by name, as the arguments of what they describe."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class FittedRows(Described):
    """How many rows the final model was fitted on, and the digest of ``fitted.parquet``, which names those of all."""

    rows: int
    digest: str


class ModelDescription(Described):
    """What every ``model.json`` says.

    Attributes:
        stage: the stage that made it.
        seed: of the training; None where nothing was trained.
        best_epoch: whose weights were kept, 1-based; None where nothing was trained by epochs.
        fitted: the rows that any model of the stage learned from or was chosen on.
        parents: stages whose models it rests on.
    """

    refit: ClassVar[str] = "dvc repro"

    format: int = FORMAT
    stage: str
    seed: int | None = None
    best_epoch: int | None = None
    fitted: FittedRows
    parents: tuple[str, ...] = ()


Kind = TypeVar("Kind", bound=ModelDescription)


def write_description(folder: Path, description: ModelDescription) -> None:
    artifacts.write_json(folder / NAME, description.model_dump(mode="json"))


def read_description(folder: Path, kind: type[Kind]) -> Kind:
    """``model.json`` of a folder. Raises InputError when it is missing, of another format or of another kind."""
    path = folder / NAME
    content = artifacts.read_json(path)
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {content.get('format')}, this version reads {FORMAT}; "
            f"make it again with `{kind.refit} {content.get('stage', '')}".rstrip()
            + "`"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}; make it again with `{kind.refit}`") from None
