"""The table of commands: one for each stage of ``dvc.yaml``, and ``params``.

Run from the project's folder. A stage is imported only when it is called, so ``--help`` answers at once.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError

app = typer.Typer(
    help="Emotion and sentiment from text, pictures and video. `dvc repro` runs the stages in the order listed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

STAGES = {
    "sample": "Render the built-in example corpora, so that a fresh clone runs with no download.",
    "split": "Read the manifest; give every post a group and a split; find duplicates.",
    "embed": "Encode texts, pictures and clips with frozen encoders.",
    "train_text": "Train the text specialist, and cross-fit it on the training rows.",
    "train_image": "Train the picture specialist, and cross-fit it on the training rows.",
    "train_video": "Train the video specialist, and cross-fit it on the training rows.",
    "fuse": "Train the fusion of the specialists, and its retrained ablations.",
    "evaluate": "Score the test rows, with intervals, baselines, ablation and error analysis.",
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns an InputError into one line on standard error and exit status 1."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


Project = Annotated[
    Path, typer.Option(help="The project's folder, where params.yaml lies.", exists=True, file_okay=False)
]


def _add_stage(name: str, summary: str) -> None:
    def run(project: Project = Path()) -> None:
        from pipeline import params
        from pipeline.layout import Layout

        layout = Layout(project)
        with one_line_errors():
            loaded = params.load(layout.params)
            importlib.import_module(f"pipeline.stages.{name}").run(loaded, layout)

    app.command(name, help=summary)(run)


for _name, _summary in STAGES.items():
    _add_stage(_name, _summary)


@app.command("params")
def params_command() -> None:
    """Print every knob of params.yaml: its meaning, what it takes and its default."""
    from rich.console import Console
    from rich.table import Table

    from pipeline import params

    table = Table("key", "default", "takes", "meaning", show_lines=False, box=None, pad_edge=False)
    for key, field, default in params.knobs():
        shown = "null" if default is None else "[]" if default == () else str(default)
        table.add_row(key, shown, params.allowed(field), field.description)
    # Piped output keeps whole sentences on one line instead of being folded at 80 columns.
    Console(width=None if sys.stdout.isatty() else 320, markup=False, highlight=False).print(table)
