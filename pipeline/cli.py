"""The table of commands: one for each stage of ``dvc.yaml``, and those that use or show what the stages made.

Run from the project's folder. A stage is imported only when it is called, so ``--help`` answers at once.
"""

import importlib
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from pipeline.core.errors import InputError
from pipeline.core.outputs import check_distinct, check_folder, check_output
from pipeline.core.terminal import printable
from pipeline.core.tracks import Track
from pipeline.serving.options import PredictInputs, PredictOptions

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
    "train_source": "Train the score model on the source corpus: its features, and its words.",
    "train_adapters": "Train the adapters that carry the target's features into the source's space.",
    "finetune_e2e": "Tune adapters, score model and text encoder together on the target, fold by fold.",
    "fuse": "Train the fusion of the specialists, and its retrained ablations.",
    "evaluate": "Score the test rows, with intervals, baselines, ablation and error analysis.",
}

COMPILER = "torch._dynamo"
"""Which torch's optimizers import at their first step."""

SIDE_BY_SIDE: dict[str, tuple[set[Track], list[str]]] = {
    "sample": ({"posts"}, []),
    "train_adapters": ({"sentiment"}, [COMPILER]),
    "finetune_e2e": ({"sentiment"}, [COMPILER]),
    "fuse": ({"posts"}, [COMPILER]),
    "evaluate": ({"posts", "sentiment"}, []),
}
"""Stages that work in several processes where these tracks are on, and what is imported there beside the stage."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns an InputError, and what the system refuses, into one line on standard error and exit status 1.

    Ctrl-C is a line, too, with the exit status 130 that shells give it.
    """
    try:
        yield
    except InputError as error:
        print("error:", error, file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise  # whoever read our output has gone: Typer ends quietly
    except OSError as error:
        places = " → ".join(str(place) for place in (error.filename, error.filename2) if place is not None)
        why = error.strerror or " ".join(str(error).split()) or type(error).__name__
        print("error:", printable((places + ": " if places else "") + why), file=sys.stderr)
        raise typer.Exit(1) from None


Project = Annotated[
    Path, typer.Option(help="The project's folder, where params.yaml lies.", exists=True, file_okay=False)
]


def divided(device: str) -> AbstractContextManager[bool]:
    """Whether this is the first of the processes of a launcher; see ``training.distributed``."""
    from pipeline.training.distributed import launched

    return launched(device)


def _add_stage(name: str, summary: str) -> None:
    def run(project: Project = Path()) -> None:
        from pipeline import params
        from pipeline.core.layout import Layout
        from pipeline.core.locks import exclusive, is_launched
        from pipeline.core.parallel import prepare_workers

        layout = Layout(project)
        # Asked to end, a stage ends as by Ctrl-C, and takes its processes and its half-written files with it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with one_line_errors():
            loaded = params.load(layout.params)
            with divided(loaded.device) if is_launched(name, os.environ) else nullcontext(True) as first:
                if not first:  # it has done its part
                    return
                with exclusive(layout.lock(name), name, "wait until it has ended"):
                    if loaded.processes > 1 and name in SIDE_BY_SIDE and SIDE_BY_SIDE[name][0] <= set(loaded.tracks):
                        prepare_workers([f"pipeline.stages.{name}", *SIDE_BY_SIDE[name][1]])
                    importlib.import_module(f"pipeline.stages.{name}").run(loaded, layout)

    app.command(name, help=summary)(run)


for _name, _summary in STAGES.items():
    _add_stage(_name, _summary)


@app.command("summary")
def summary_command(project: Project = Path()) -> None:
    """Print the scores of a finished run beside their baselines, what to be wary of, and what to look at next."""
    with one_line_errors():
        from pipeline.core.layout import Layout
        from pipeline.reporting import summary
        from pipeline.reporting.evaluated import blaming_the_metrics

        layout = Layout(project)
        with blaming_the_metrics(layout):
            summary.run(layout)


@app.command("compare")
def compare_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[EXPERIMENT OR REVISION]...",
            help="Columns, in this order; without any: workspace, HEAD and the newest experiments.",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table here, every digit.", dir_okay=False)] = None,
    md: Annotated[Path | None, typer.Option(help="Also write the table here as Markdown.", dir_okay=False)] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the scores with their intervals: a .png file.", dir_okay=False)
    ] = None,
    project: Project = Path(),
) -> None:
    """Show experiments of DVC side by side: the params that differ, and the scores with their intervals."""
    _check_suffix("--picture", picture, ".png")
    with one_line_errors():
        from pipeline.core.layout import Layout

        _check_files([out for out in (csv, md, picture) if out is not None], project)
        from pipeline.reporting import compare

        compare.run(Layout(project), names or [], csv, md, picture)


@app.command("diagnose")
def diagnose_command(project: Project = Path()) -> None:
    """Say what is wrong with the source → target transfer: measured, what it means, what to try."""
    with one_line_errors():
        from pipeline import params
        from pipeline.core.layout import Layout
        from pipeline.reporting import diagnose

        layout = Layout(project)
        diagnose.run(params.load(layout.params), layout)


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


Bundle = Annotated[
    Path | None, typer.Option(help="Use this bundle; without it, the project's models.", exists=True, file_okay=False)
]


@app.command("export")
def export_command(
    folder: Annotated[Path, typer.Argument(help="A new folder, or an older bundle, which is replaced.")],
    track: Annotated[
        Track | None, typer.Option(help="Only this track's models; otherwise those of all that are trained.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write classifiers and fusion as ONNX.")] = False,
    project: Project = Path(),
) -> None:
    """Put all that prediction needs into one folder: it works without the project, DVC or a network."""
    if onnx and track == "sentiment":
        raise typer.BadParameter("--onnx is of the posts track")
    with one_line_errors():
        check_folder(folder, _inputs(project))
        from pipeline import params
        from pipeline.core.layout import Layout
        from pipeline.serving import bundle

        layout = Layout(project)
        bundle.export(params.load(layout.params), layout, folder, [track] if track else [], onnx=onnx)


MediaFolder = Annotated[
    Path | None,
    typer.Option(
        help="What the manifest's paths are relative to; otherwise its own folder.", exists=True, file_okay=False
    ),
]
Coverage = Annotated[
    float | None,
    typer.Option(
        help="Also give a set of labels that contains the true one with this probability (of a score: an interval, .9)."
    ),
]


@app.command("predict")
def predict_command(
    text: Annotated[str | None, typer.Option(help="The text of a post, or a line to score.")] = None,
    image: Annotated[Path | None, typer.Option(help="Its picture.", exists=True, dir_okay=False)] = None,
    video: Annotated[Path | None, typer.Option(help="Its clip.", exists=True, dir_okay=False)] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="A table of posts: CSV, JSON Lines or Parquet, or a folder of it.", exists=True)
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Features to score, in any form that target.corpus takes.", exists=True)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where a table's predictions go: .parquet or .csv.")] = None,
    media: MediaFolder = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="JSON Lines in, JSON Lines out; so is any pipe.")] = False,
    track: Annotated[
        Track | None,
        typer.Option(help="Whose model answers --text; otherwise posts, where it is there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Also say what each word, patch and frame did.")] = False,
    coverage: Coverage = None,
    ray: Annotated[
        str | None, typer.Option(help="Predict a table on a Ray cluster: its address, or local for one of processes.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that do so; 2, if not said.", min=1)] = None,
    bundle: Bundle = None,
    project: Project = Path(),
) -> None:
    """Predict one post, a table of posts, or JSON Lines from a pipe; score a corpus of features, or a line of words."""
    inputs = PredictInputs(text, image, video, manifest, corpus, stdin)
    options = PredictOptions(inputs, out, media, track, as_json, explain, coverage, ray, workers, bundle, project)
    options.check()
    with one_line_errors():
        if out is not None:
            _check_table(out, inputs.tables, bundle, project)
        from pipeline.serving import command

        if not command.predict(options):
            raise typer.Exit(1)


def _check_suffix(option: str, out: Path | None, suffix: str) -> None:
    if out is not None and out.suffix != suffix:
        raise typer.BadParameter(f"{option}: {out} does not end in {suffix}")


def _check_files(outs: list[Path], project: Path) -> None:
    """Raises InputError where outputs would be written over the project's own files, its corpora, or each other."""
    check_distinct(outs)
    inputs = _inputs(project) if outs else []
    for out in outs:
        check_output(out, inputs)


def _inputs(project: Path) -> list[Path]:
    """The project's own files and folders, and its corpora."""
    from pipeline import params
    from pipeline.core.layout import Layout

    layout = Layout(project)
    inputs = list(layout.project_files)
    # Params that cannot be read name no corpus; `compare` needs none, and all others say what is wrong with them.
    with suppress(InputError):
        inputs += params.load(layout.params).corpora(layout.root)
    return inputs


def _check_table(out: Path, tables: list[Path], bundle: Path | None, project: Path) -> None:
    """Raises InputError where a table is no file, or its predictions would be written over what is read."""
    from pipeline.core.files import check_readable

    for table in tables:
        check_readable(table)
    check_output(out, [*tables, *(_inputs(project) if bundle is None else [bundle])])


def _limit(meaning: str, least: float, most: float = 86_400) -> typer.models.OptionInfo:
    """The option of a limit, which is a number: click lets NaN through every range."""

    def number(value: float) -> float:
        if math.isnan(value):
            raise typer.BadParameter("nan is no number")
        return value

    return typer.Option(help=meaning, min=least, max=most, callback=number)


@app.command("forget")
def forget_command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Posts, by their id.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with one id a line.", exists=True, dir_okay=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
    project: Project = Path(),
) -> None:
    """List what is kept of posts: rows, media, vectors, outputs, objects of DVC's cache; with --yes, remove it."""
    with one_line_errors(), ExitStack() as stack:
        from pipeline import params
        from pipeline.core.layout import Layout
        from pipeline.core.locks import exclusive
        from pipeline.posts import forgetting

        layout = Layout(project)
        for name in STAGES:
            stack.enter_context(exclusive(layout.lock(name), name, "wait until it has ended"))
        named = forgetting.read_ids(ids or (), file)
        message = forgetting.run(params.load(layout.params), layout, named, yes=yes)
        print("\n".join(map(printable, message.splitlines())))


@app.command("fetch")
def fetch_command(
    address: Annotated[
        str,
        typer.Argument(help="A table of posts or a corpus: s3://, gs:// or https://; media lie beside their table."),
    ],
    folder: Annotated[Path, typer.Argument(help="A new folder, or one of an earlier fetch.", file_okay=False)],
    max_mb: Annotated[float, _limit("Most megabytes of a file.", 0.001, 1e6)] = 2000.0,
    max_total_gb: Annotated[float, _limit("Most gigabytes of all files that are fetched.", 0.001, 1e6)] = 100.0,
    workers: Annotated[int, typer.Option(help="Files fetched at a time.", min=1, max=256)] = 8,
) -> None:
    """Copy a table with its pictures and clips, or a corpus, from a store or a server into a folder."""
    with one_line_errors():
        from pipeline.corpora.remote import FetchLimits, fetch

        limits = FetchLimits(round(max_mb * 1e6), round(max_total_gb * 1e9), workers=workers)
        print(f"{printable(str(folder))}: {fetch(address, folder, limits)}")


@app.command("extract")
def extract_command(
    clips: Annotated[
        Path,
        typer.Argument(
            help="A table of clips, CSV, JSON Lines or Parquet: id and video; any of text, group, score, split.",
            exists=True,
            dir_okay=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The corpus of features to write: .parquet.", dir_okay=False)],
    media: Annotated[
        Path | None,
        typer.Option(
            help="What the table's paths are relative to; otherwise its own folder.", exists=True, file_okay=False
        ),
    ] = None,
    transcribe: Annotated[
        bool, typer.Option("--transcribe", help="Hear the words of clips without text, by embed.video.transcript.")
    ] = False,
    project: Project = Path(),
) -> None:
    """Turn raw clips into a corpus of features, for source.corpus, target.corpus and predict --corpus."""
    _check_suffix("--out", out, ".parquet")
    with one_line_errors():
        from pipeline import params
        from pipeline.core.layout import Layout
        from pipeline.encoders import extraction

        layout = Layout(project)
        check_output(out, [clips, *layout.project_files])
        print(
            extraction.run(params.load(layout.params), layout, clips, out, media or clips.parent, transcribe=transcribe)
        )


@app.command("serve")
def serve_command(
    bundle: Annotated[
        Path | None,
        typer.Argument(help="A bundle; without it, the project's models.", exists=True, file_okay=False),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    max_mb: Annotated[float, _limit("Most megabytes of a request.", 0.01, 1024)] = 16.0,
    max_pixels: Annotated[
        int, typer.Option(help="Most pixels of a picture or frame; params may allow fewer.", min=65_536)
    ] = 25_000_000,
    clip_seconds: Annotated[float, _limit("Longest clip, in seconds.", 0.1)] = 60.0,
    seconds: Annotated[float, _limit("Most seconds for a request to come in or be answered.", 1)] = 30.0,
    queue: Annotated[int, typer.Option(help="Requests under way at a time; more get status 503.", min=1)] = 128,
    batch: Annotated[int, typer.Option(help="Posts predicted together, at most.", min=1, max=1024)] = 32,
    explanations: Annotated[int, typer.Option(help="Of them explanations, at most; more get 503.", min=1)] = 4,
    header_seconds: Annotated[float, _limit("Most seconds for the header of a request to come in.", 0.1)] = 10.0,
    idle_seconds: Annotated[float, _limit("Seconds that a connection may wait for a further request.", 1)] = 5.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name of this server; its pages may ask. Repeat it for several.", metavar="NAME"),
    ] = None,
    project: Project = Path(),
) -> None:
    """Answer over HTTP: a page for people at /, posts at /api/predict, scores at /api/score, /health, /metrics."""
    with one_line_errors():
        try:
            from pipeline.serving import server
        except ModuleNotFoundError as error:
            raise InputError(f'serve needs {error.name}: pip install "emocare-pipeline[serve]"') from None
        from pipeline.serving import command
        from pipeline.serving.intake import RequestLimits as Limits

        limits = Limits(round(max_mb * 1e6), 20_000, clip_seconds, seconds, queue, batch, explanations)
        listen = server.ListenSettings(host, port, tuple(allow_host or ()), header_seconds, idle_seconds)
        tracks = command.tracks(bundle, project)
        posts = command.predictor(bundle, project, max_pixels) if "posts" in tracks else None
        scores = command.score_predictor(bundle, project) if "sentiment" in tracks else None
        server.serve(posts, scores, limits, listen)


@app.command("report")
def report_command(
    out: Annotated[Path, typer.Option(help="The file to write.", dir_okay=False)] = Path("report.html"),
    project: Project = Path(),
) -> None:
    """Write a finished run as one HTML file: data, curves, scores, mistakes, transfer, params. It needs no network."""
    _check_suffix("--out", out, ".html")
    with one_line_errors():
        _check_files([out], project)
        from pipeline import params
        from pipeline.core.layout import Layout
        from pipeline.reporting import report
        from pipeline.reporting.evaluated import blaming_the_metrics

        layout = Layout(project)
        with blaming_the_metrics(layout):
            report.write(params.load(layout.params), layout, out)
        print(f"{printable(str(out))}: {out.stat().st_size / 1e6:.1f} MB; open it in a browser")


@app.command("errors")
def errors_command(
    label: Annotated[str | None, typer.Option(help="Only posts with this label.")] = None,
    predicted: Annotated[str | None, typer.Option(help="Only posts taken for this class.")] = None,
    suspects: Annotated[
        bool, typer.Option("--suspects", help="Instead of errors: training posts whose label is likely a mistake.")
    ] = False,
    limit: Annotated[int, typer.Option(help="At most so many posts.", min=1, max=500)] = 50,
    out: Annotated[Path, typer.Option(help="The gallery to write.", dir_okay=False)] = Path("errors.html"),
    open_: Annotated[bool, typer.Option("--open", help="Open the gallery in the browser.")] = False,
    project: Project = Path(),
) -> None:
    """List mistakes on test posts, or labels that look wrong, and draw them as a gallery."""
    _check_suffix("--out", out, ".html")
    with one_line_errors():
        _check_files([out], project)
        from rich.console import Console

        from pipeline import params
        from pipeline.core.layout import Layout
        from pipeline.reporting import errors

        layout = Layout(project)
        listed = errors.label_suspects if suspects else errors.mistakes
        listing = listed(params.load(layout.params), layout, label, predicted, limit)
        errors.write(out, listing)
        errors.show(Console(), listing)
        if open_:
            errors.open_in_browser(out)
