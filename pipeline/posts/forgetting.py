"""Removes posts and what was kept of them: rows, media, vectors, outputs that show them, objects of DVC's cache.

What is searched is read as what it is: Parquet by its cells, all else by its bytes. Outputs that only `dvc repro` can
make without the posts are removed whole. What tells of the posts comes last, the run's table of posts and the manifest:
a command that was cut off is run again.
"""

import configparser
import hashlib
import html
import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import artifacts, content_store
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, content_digest, inside
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES
from pipeline.corpora.tabular import read_texts
from pipeline.corpora.without_rows import drop_rows
from pipeline.params import Params

COLUMNS = ("id", "text", "image", "video")

OUTPUTS = ("data/split", "data/embeddings", "models", "metrics", "plots", ".dvc/tmp/exps")
"""Where the stages write, and where DVC runs experiments."""

PICTURES_OF_POSTS = ("contact_sheet.png", "report.html")
"""What shows posts as pictures, in which no text can be searched."""

BLOCK = 2**20
"""Bytes of a file that are searched at a time, at least."""

CATEGORIES = ("label", "split", "given_split", "fold", "role", "kind", "step", "subset")
"""Columns whose cells are a few words of everybody's: a post whose whole text is one of these is not meant by them."""

SHOWN = 5
"""Names of a list that are printed."""


@dataclass(frozen=True)
class Traces:
    """What tells that a file holds something of the posts.

    Attributes:
        ids: of the posts.
        texts: that no other post has.
        digests: sha256 of contents that no other post has, which are the keys of their vectors.
        media: files that no other post uses.
    """

    ids: frozenset[str]
    texts: frozenset[str]
    digests: frozenset[str]
    media: tuple[Path, ...]

    def pattern(self) -> re.Pattern[bytes]:
        """Matches them in CSV, JSON and HTML, where they stand by themselves."""
        words = {*self.ids, *self.texts, *self.digests}
        spelled = {
            spelling
            for word in words
            for spelling in (word, word.replace('"', '""'), json.dumps(word)[1:-1], html.escape(word))
        }
        spelled |= {json.dumps(word, ensure_ascii=False)[1:-1] for word in words}
        either = b"|".join(re.escape(word.encode()) for word in sorted(spelled, key=len, reverse=True))
        return re.compile(rb"(?<![\w.-])(?:" + either + rb")(?![\w-]|\.\d)")

    def reach(self) -> int:
        """No match of the pattern is longer, in bytes: none of a sign is longer than JSON's, two of ``\\u0000``."""
        return 12 * max(map(len, (*self.ids, *self.texts, *self.digests)))


@dataclass
class Plan:
    """What is to be removed."""

    manifest: Path
    run: Path
    """The table of posts of the last run, the only place that knows a post whose row the manifest no longer has."""
    traces: Traces
    rows: int
    vectors: dict[Path, int] = field(default_factory=dict)
    tables: dict[Path, int] = field(default_factory=dict)
    outputs: list[Path] = field(default_factory=list)
    cached: list[Path] = field(default_factory=list)
    trained: list[Path] = field(default_factory=list)

    def lines(self, root: Path) -> Iterator[str]:
        """What it holds, for people."""

        def names(paths: Collection[Path]) -> str:
            some = [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths]
            more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
            return f": {', '.join(some[:SHOWN])}{more}" if some else ""

        yield f"rows of the manifest: {self.rows} in {self.manifest}"
        yield f"media that no other post uses: {len(self.traces.media)}{names(self.traces.media)}"
        yield f"rows of the run's tables: {sum(self.tables.values())}{names(self.tables)}"
        yield f"outputs that show them, removed whole: {len(self.outputs)}{names(self.outputs)}"
        yield f"vectors, words and looks in the stores: {sum(self.vectors.values())}"
        yield f"objects of DVC's cache: {len(self.cached)}"
        yield f"kept results of trainings: {len(self.trained)}"


def plan(params: Params, layout: Layout, ids: Sequence[str]) -> Plan:
    """Finds all that is kept of the posts.

    Raises InputError when the manifest cannot be read, or an id is in no row of it nor of the run.
    """
    manifest = layout.root / params.posts.manifest
    if manifest.is_relative_to(layout.root / "data" / "sample"):
        raise InputError(f"{manifest}: the built-in posts are drawn, and of nobody; set posts.manifest in params.yaml")
    (table,) = read_texts(manifest, COLUMNS, None, "; set posts.manifest in params.yaml")
    if "id" not in table.cells:
        raise InputError(f"{manifest}: lacks the column id")
    last = layout.table("posts")
    run = artifacts.read_parquet(last).to_pandas() if last.is_file() else None
    known = {*table.cells["id"].dropna(), *(() if run is None else run["sample_id"])}
    if unknown := [name for name in ids if name not in known]:
        raise InputError(f"{unknown[0]!r} is the id of no post in {manifest}, nor of the last run; nothing was removed")
    traces = _traces(frozenset(ids), table.cells, run, manifest, layout.root / params.posts.media, layout)
    planned = Plan(manifest, last, traces, int(table.cells["id"].isin(traces.ids).sum()))
    _find_outputs(planned, layout)
    planned.cached = _cached(_dvc_cache(layout.root), traces)
    stores = [path for name in ("embeddings", "looks") for path in sorted((layout.cache / name).glob("*.sqlite"))]
    planned.vectors = {path: content_store.forget(path, list(traces.digests), count_only=True) for path in stores}
    planned.trained = [path for name in ("finished", "training") for path in sorted((layout.cache / name).glob("*"))]
    return planned


def carry_out(plan: Plan) -> None:
    """Removes what the plan names. Raises InputError as ``content_store.forget``; run it again after that."""
    for path in plan.cached:
        path.chmod(0o644)
        path.unlink()
    for path in plan.vectors:
        content_store.forget(path, list(plan.traces.digests))
    for path in plan.trained:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in plan.outputs:
        path.unlink(missing_ok=True)
    for path in plan.traces.media:
        path.unlink(missing_ok=True)
    for path in sorted(plan.tables, key=lambda path: path == plan.run):
        artifacts.write_parquet(path, _without(_table(path), plan.traces))
    if plan.rows:
        drop_rows(plan.manifest, plan.traces.ids)


def _traces(
    ids: frozenset[str], cells: pd.DataFrame, run: pd.DataFrame | None, manifest: Path, media: Path, layout: Layout
) -> Traces:
    """What the posts have and no other post has, by the manifest and by the last run."""
    forgotten, others = cells[cells["id"].isin(ids)], cells[~cells["id"].isin(ids)]

    def named(rows: pd.DataFrame, columns: Sequence[str], base: Path) -> set[Path]:
        paths = set()
        for name in columns:
            for value in rows.get(name, pd.Series(dtype=object)).dropna():
                try:
                    paths.add(inside(media, value, base=base))
                except MediaError:
                    continue  # what leads out of the folder was never read
        return {path for path in paths if path.is_file()}

    def files(of_manifest: pd.DataFrame, *, forgotten: bool) -> set[Path]:
        paths = named(of_manifest, ("image", "video"), manifest.parent)
        if run is not None:
            paths |= named(run[run["sample_id"].isin(ids) == forgotten], ("image_path", "video_path"), media)
        return paths

    def texts(of_manifest: pd.DataFrame, *, forgotten: bool) -> set[str]:
        texts_of_rows = set(of_manifest["text"].dropna()) if "text" in of_manifest else set()
        if run is not None:
            texts_of_rows |= set(run.loc[run["sample_id"].isin(ids) == forgotten, "text"].dropna())
        return texts_of_rows

    alone = files(forgotten, forgotten=True) - files(others, forgotten=False)
    own_texts = texts(forgotten, forgotten=True) - texts(others, forgotten=False)
    digests = {hashlib.sha256(value.encode()).hexdigest() for value in own_texts} | set(map(content_digest, alone))
    shared: set[str] = set()
    for modality in MODALITIES:
        path = layout.embeddings("posts", modality)
        if path.is_file():
            rows = pq.read_table(path, columns=["sample_id", "content"]).to_pandas().dropna()
            digests |= set(rows.loc[rows["sample_id"].isin(ids), "content"])
            shared |= set(rows.loc[~rows["sample_id"].isin(ids), "content"])
    return Traces(ids, frozenset(own_texts), frozenset(digests - shared), tuple(sorted(alone)))


def _find_outputs(plan: Plan, layout: Layout) -> None:
    """Tables of the run lose their rows; what else holds or shows the posts goes whole."""
    pattern = plan.traces.pattern()
    places = [layout.root / name for name in OUTPUTS]
    files = [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
    for path in [*files, *(layout.root / name for name in ("report.html", "errors.csv", "errors.html"))]:
        if not path.is_file() or path.is_relative_to(layout.root / "data" / "sample"):
            continue
        if path.suffix == ".parquet":
            rows = _held_rows(path, plan.traces)
            if rows is None:
                plan.outputs.append(path)
            elif rows:
                plan.tables[path] = rows
        elif path.name in PICTURES_OF_POSTS or _holds_words(path, pattern, plan.traces.reach()):
            plan.outputs.append(path)


def _table(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read()


def _held_rows(path: Path, traces: Traces) -> int | None:
    """How many rows of a table hold something of the posts; None where it is damaged: `dvc repro` makes it again."""
    try:
        with pq.ParquetFile(path) as file:
            words = [column.name for column in file.schema_arrow if _holds_text(column)]
            return sum(_kept(batch, traces).count(False) for batch in file.iter_batches(columns=words) if words)
    except (pa.ArrowException, OSError, ValueError):
        return None


def _holds_words(path: Path, pattern: re.Pattern[bytes], reach: int) -> bool:
    """Whether the pattern, which looks one byte back and two ahead, matches a file; some of it is read at a time."""
    window, begins, size = b"", True, max(BLOCK, reach)
    with path.open("rb") as handle:
        while True:
            block = handle.read(size)
            window, ends = window + block, len(block) < size
            for match in pattern.finditer(window):
                # At an edge of the window it cannot be seen what stands beside it; the next window, or the last, shows.
                if (match.start() or begins) and (ends or match.end() + 2 <= len(window)):
                    return True
            if ends:
                return False
            window, begins = window[-(reach + 3) :], False


def _holds_text(column: pa.Field) -> bool:
    """Whether cells of this column are compared with what the posts have."""
    numbered = column.name == "id" and pa.types.is_integer(column.type)
    return numbered or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


def _without(table: pa.Table, traces: Traces) -> pa.Table:
    """The rows of a table that hold nothing of the posts."""
    return table.filter(pa.array(_kept(table, traces), type=pa.bool_()))


def _kept(table: pa.Table | pa.RecordBatch, traces: Traces) -> list[bool]:
    """Of each row, whether it holds nothing of the posts."""
    named = {*traces.ids, *traces.digests}
    kept = [True] * len(table)
    for described, column in zip(table.schema, table.columns, strict=True):
        if _holds_text(described):
            words = named if described.name in CATEGORIES else {*named, *traces.texts}
            kept = [
                keep and str(cell).strip() not in words for keep, cell in zip(kept, column.to_pylist(), strict=True)
            ]
    return kept


# --- the cache of DVC ------------------------------------------------------------------------------------------------


def _dvc_cache(root: Path) -> Path:
    """The folder of DVC's cache: ``.dvc/cache``, or the one that its settings name."""
    folder = root / ".dvc" / "cache"
    for name in ("config", "config.local"):
        settings = configparser.ConfigParser(interpolation=None)
        try:
            settings.read(root / ".dvc" / name, encoding="utf-8")
        except (configparser.Error, ValueError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"{root / '.dvc' / name}: are no settings of DVC ({why}); nothing was removed") from None
        if settings.has_option("cache", "dir"):
            folder = root / ".dvc" / settings.get("cache", "dir")
    return folder.resolve()


def _cached(cache: Path, traces: Traces) -> list[Path]:
    """The objects that hold something of the posts, by their content or by the name of a folder's list."""
    pattern = traces.pattern()
    gone = {_md5(path) for path in traces.media}
    objects = [path for path in sorted(cache.glob("files/md5/*/*")) if path.is_file()]
    holding = [path for path in objects if path.parent.name + path.name in gone or _holds(path, traces, pattern)]
    for path in objects:
        if path.suffix != ".dir":
            continue
        try:
            listed = {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}
        except (ValueError, KeyError, TypeError):  # damaged, as below
            holding.append(path)
            continue
        shown = {md5 for name, md5 in listed.items() if Path(name).name in PICTURES_OF_POSTS}
        holding += [cache / "files" / "md5" / md5[:2] / md5[2:] for md5 in shown]
        if gone & set(listed.values()):
            holding.append(path)
    return sorted({path for path in holding if path.is_file()})


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _holds(path: Path, traces: Traces, pattern: re.Pattern[bytes]) -> bool:
    with path.open("rb") as handle:
        parquet = handle.read(4) == b"PAR1"
    return _held_rows(path, traces) != 0 if parquet else _holds_words(path, pattern, traces.reach())


# --- the command -----------------------------------------------------------------------------------------------------


def read_ids(listed: Iterable[str], file: Path | None) -> list[str]:
    """The ids of the command line and of a file with one a line. Raises InputError where there is none."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines() if file is not None else []
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    ids = list(dict.fromkeys(name.strip() for name in (*listed, *lines) if name.strip()))
    if not ids:
        raise InputError("no id was given: name posts, or a file with one id a line (--file)")
    return ids


def run(params: Params, layout: Layout, ids: Sequence[str], *, yes: bool) -> str:
    """Lists what is kept of the posts, and with ``yes`` removes it; returns what to print. Raises InputError."""
    forgetting = plan(params, layout, ids)
    head = f"{len(ids)} posts" if len(ids) > 1 else f"post {ids[0]}"
    listed = "\n".join(f"  {line}" for line in forgetting.lines(layout.root))
    if not yes:
        return f"{head}: what is kept\n{listed}\nnothing was removed; add --yes to remove all of it"
    carry_out(forgetting)
    return (
        f"{head}: removed\n{listed}\nmodels, and bundles made of them, still learned from it: run `dvc repro` and "
        "export again. What git, a remote of DVC, backups and copies elsewhere hold is left: see docs/reliability.md"
    )
