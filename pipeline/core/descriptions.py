"""``model.json``, typed: how a net is rebuilt, what it was made from, and which rows it was fitted on.

Every kind of model has a description of its own below its track; what all have in common stands here. Reading needs no
torch, so that `evaluate` can ask for the rows that a model has seen.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.core import artifacts, json_text
from pipeline.core.errors import DamagedError

FORMAT = 3
"""Version of ``model.json``; a reader refuses any other."""

NAME = "model.json"


Width = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of a vector or a layer, or a count of columns."""

Hidden = Annotated[int, Field(ge=0, le=1_000_000)]
"""Of a layer that may be left out: 0."""

Heads = Annotated[int, Field(ge=1, le=1024)]
Chance = Annotated[float, Field(ge=0.0, lt=1.0)]
Name = Annotated[str, Field(min_length=1, max_length=500)]


class Described(BaseModel):
    """A part of a description: unknown keys, wrong types and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def arguments(self) -> dict[str, Any]:
        """The values by name, as the arguments of what they describe."""
        return {name: getattr(self, name) for name in type(self).model_fields}


Widths = Annotated[dict[str, Width], Field(min_length=1)]
"""Modality → how many columns it has."""


class MeetingDescription(Described):
    """What nets have in common in which modalities meet in a space of one ``width``."""

    widths: Widths
    width: Width
    heads: Heads
    hidden: Width
    dropout: Chance
    modality_dropout: Chance

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        return self


class FittedRows(Described):
    """How many rows the final model was fitted on, and the digest of ``fitted.parquet``, which names those of all."""

    rows: Annotated[int, Field(ge=0)]
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


Model = TypeVar("Model", bound=BaseModel)
Kind = TypeVar("Kind", bound=ModelDescription)


def write_description(folder: Path, description: ModelDescription) -> None:
    artifacts.write_json(folder / NAME, description.model_dump(mode="json"))


def read_description(folder: Path, kind: type[Kind]) -> Kind:
    """``model.json`` of a folder. Raises DamagedError when it is missing, of another format or of another kind."""
    path = folder / NAME
    content = read_object(path, kind.refit)
    if content.get("format") != FORMAT:
        remedy = f"make it again with `{' '.join([kind.refit, str(content.get('stage', ''))]).rstrip()}`"
        raise DamagedError(f"{path}: format {content.get('format')}, this version reads {FORMAT}", remedy)
    return read_typed(path, kind, kind.refit)


def read_object(path: Path, command: str) -> dict[str, Any]:
    """A JSON object; ``command`` makes the file again. Raises DamagedError when there is none."""
    remedy = f"make it again with `{command}`"
    try:
        return json_text.read_object(path.read_bytes())
    except FileNotFoundError:
        raise DamagedError(f"{path}: not found", remedy) from None
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror}", remedy) from None
    except ValueError as error:
        raise DamagedError(f"{path}: {error}", remedy) from None


def read_typed(path: Path, kind: type[Model], command: str) -> Model:
    """A JSON file as what it has to be: strictly, without conversion. Raises DamagedError, which names what is wrong.

    Args:
        command: what makes the file again.
    """
    read_object(path, command)  # pydantic's own reader takes NaN, a key twice, and says of brackets only that they are
    try:
        return kind.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        why = " ".join(first["msg"].split())
        raise DamagedError(f"{path}: {f'{where}: ' if where else ''}{why}", f"make it again with `{command}`") from None
