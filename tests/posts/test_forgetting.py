"""What is forgotten is in no file of the project, of DVC's cache or of ours, and all else is where it was."""

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core.layout import Layout
from pipeline.corpora.looks import look
from pipeline.encoders import image, text
from pipeline.media.pictures import read_picture
from pipeline.params import EmbedImageParams, EmbedTextParams
from pipeline.posts import forgetting
from pipeline.training.device import pick
from pipeline.training.finished import Finished
from tests import tiny

GONE, SECRET = "ann@example.org/77", 'my "secret" text, on\ntwo lines & more'
POSTS = 24


def png(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project of which `split` and `embed` have run, DVC has kept every output, and the stages after have begun."""
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "kept"))
    root, media = tmp_path / "project", tmp_path / "project" / "posts"
    media.mkdir(parents=True)
    rows = [
        {
            "id": f"p{at}",
            "text": f"i am {'so' if at % 2 else 'not'} happy {at}",
            "image": f"posts/{at}.png",
            "label": "AB"[at % 2],
        }
        for at in range(POSTS)
    ]
    rows[5] |= {"id": GONE, "text": SECRET, "image": "posts/ann.png"}
    rows[6] |= {"text": "shared words"}
    rows[7] |= {"text": "shared words"}
    for at, row in enumerate(rows):
        png(root / row["image"], at)
    pd.DataFrame(rows).to_csv(root / "posts.csv", index=False, lineterminator="\r\n")
    words, clip = tiny.distilbert(tmp_path / "words"), tiny.clip(tmp_path / "clip")
    (root / "params.yaml").write_text(
        json.dumps(
            {
                "tracks": ["posts"],
                "device": "cpu",
                "posts": {"manifest": "posts.csv", "media": "posts"},
                "embed": {
                    "text": {"encoder": str(words)},
                    "image": {"encoder": str(clip)},
                    "video": {"encoder": str(clip), "streams": ["frames"]},
                },
            }
        )
    )
    for stage in ("split", "embed"):
        made = CliRunner().invoke(app, [stage, "--project", str(root)], catch_exceptions=False)
        assert made.exit_code == 0, made.output
    layout = Layout(root)
    later_outputs(layout)
    keep_as_dvc(layout)
    return layout


def later_outputs(layout: Layout) -> None:
    plots = layout.root / "plots" / "evaluate"
    plots.mkdir(parents=True)
    pd.DataFrame({"sample_id": [GONE], "text": [SECRET]}).to_csv(plots / "errors.csv", index=False)
    pd.DataFrame({"x": [0.5], "y": [77]}).to_csv(plots / "curve.csv", index=False)
    shutil.copy(layout.root / "posts" / "ann.png", plots / "contact_sheet.png")
    made = pd.DataFrame({"sample_id": [GONE, "p1"], "logit": [0.25, 0.5]})
    predictions = layout.predictions("train_text")
    predictions.parent.mkdir(parents=True)
    made.to_parquet(predictions, index=False)
    Finished(layout.cache / "finished" / "train_text-1").get_or_make("fold", lambda: {"rows": made})


def keep_as_dvc(layout: Layout) -> None:
    """Copies of every file by their md5, and lists of folders, as DVC's cache has them."""

    def keep(data: bytes, suffix: str = "") -> str:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        path = layout.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / (md5[2:] + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)
        return md5

    files = [path for path in sorted(layout.root.rglob("*")) if path.is_file()]
    listed: dict[Path, list[dict[str, str]]] = {}
    for path in files:
        of = {"md5": keep(path.read_bytes()), "relpath": path.name}
        listed.setdefault(path.parent, []).append(of)
    for of in listed.values():
        keep(json.dumps(of).encode(), ".dir")


def forget(layout: Layout, *arguments: str) -> tuple[int, str]:
    made = CliRunner().invoke(app, ["forget", *arguments, "--project", str(layout.root)], catch_exceptions=False)
    return made.exit_code, made.output


def everything(layout: Layout) -> dict[Path, bytes]:
    places = (layout.root, layout.cache)
    return {path: path.read_bytes() for place in places for path in sorted(place.rglob("*")) if path.is_file()}


def vectors(layout: Layout) -> list[bytes]:
    """What the encoders make of the forgotten post."""
    settings, cpu = json.loads(layout.params.read_text())["embed"], pick("cpu")
    words = text.load(EmbedTextParams(encoder=settings["text"]["encoder"]))
    pictures = image.load(EmbedImageParams(encoder=settings["image"]["encoder"]))
    picture = read_picture(layout.root / "posts" / "ann.png", max_pixels=10**6, at_least=pictures.at_least)
    made = pictures.encode(pictures.preprocess(picture)[None], cpu, fixed=True)[0]
    return [words.encode_tokens(words.tokenize([SECRET]), cpu, least_tokens=64)[0].tobytes(), made.tobytes()]


def decoded(path: Path, data: bytes) -> bytes:
    """What a file holds, with the cells of Parquet spelled out and its vectors as they are in memory."""
    if data[:4] != b"PAR1":
        return data
    rows = pq.read_table(path).to_pylist()
    return data + b"".join(
        np.asarray(cell, dtype=np.float32).tobytes() if isinstance(cell, list) else str(cell).encode() + b"\n"
        for row in rows
        for cell in row.values()
    )


def test_nothing_is_left_of_a_forgotten_post(project: Layout) -> None:
    picture = (project.root / "posts" / "ann.png").read_bytes()
    secrets = {
        "id": GONE.encode(),
        "words": b"secret",
        "digest": hashlib.sha256(SECRET.encode()).hexdigest().encode(),
        "picture": picture,
        "its look": look(read_picture(project.root / "posts" / "ann.png", max_pixels=10**6, at_least=64)).tobytes(),
        "its name": b"ann.png",
        **{f"vector {at}": vector for at, vector in enumerate(vectors(project))},
    }
    before = everything(project)
    for name, secret in secrets.items():  # the test can find them
        assert any(secret in decoded(path, data) for path, data in before.items()), name
    code, said = forget(project, GONE, "--yes")
    assert code == 0, said
    assert "rows of the manifest: 1" in said
    assert "media that no other post uses: 1: posts/ann.png" in said
    assert "vectors, words and looks in the stores: 3" in said
    after = everything(project)
    for name, secret in secrets.items():
        assert [path for path, data in after.items() if secret in decoded(path, data)] == [], name


@pytest.mark.parametrize("cut_at", ["content_store.forget", "artifacts.write_parquet"])
def test_of_a_post_that_only_the_last_run_knows_all_goes_even_in_two_attempts(
    project: Layout, monkeypatch: pytest.MonkeyPatch, cut_at: str
) -> None:
    manifest = project.root / "posts.csv"
    pd.read_csv(manifest, dtype=str).query("id != @GONE").to_csv(manifest, index=False)
    stored = sum(rows(path) for path in (project.cache / "embeddings").glob("*.sqlite"))

    def interrupted(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"pipeline.posts.forgetting.{cut_at}", interrupted)
        assert forget(project, GONE, "--yes")[0] == 130
    code, said = forget(project, GONE, "--yes")
    assert code == 0, said
    assert sum(rows(path) for path in (project.cache / "embeddings").glob("*.sqlite")) == stored - 2
    assert not (project.root / "posts" / "ann.png").exists()
    left = {path: decoded(path, data) for path, data in everything(project).items()}
    assert [path for path, data in left.items() if GONE.encode() in data or b"secret" in data] == []


def test_a_text_that_is_also_the_name_of_a_class_takes_no_rows_of_that_class(project: Layout) -> None:
    table = pq.read_table(project.table("posts")).to_pandas()
    table.loc[table["sample_id"] == GONE, "text"] = "A"
    manifest = project.root / "posts.csv"
    changed = pd.read_csv(manifest, dtype=str)
    changed.loc[changed["id"] == GONE, "text"] = "A"
    changed.to_csv(manifest, index=False)
    table.to_parquet(project.table("posts"), index=False)
    assert forget(project, GONE, "--yes")[0] == 0
    assert len(pq.read_table(project.table("posts"))) == POSTS - 1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_objects_of_the_cache_go_from_inside_the_project_too(
    project: Layout, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """Where the project's folder is the current one, as without ``--project``."""
    cache = project.root / ".dvc" / "cache"
    if elsewhere:
        cache = cache.rename(project.root.parent / "objects")
        (project.root / ".dvc" / "config").write_text("[cache]\n    dir = ../../objects\n")
    monkeypatch.chdir(project.root)
    before = len([path for path in cache.rglob("*") if path.is_file()])
    made = CliRunner().invoke(app, ["forget", GONE, "--yes"], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    left = [path for path in cache.rglob("*") if path.is_file()]
    assert f"objects of DVC's cache: {before - len(left)}\n" in made.output and len(left) < before
    assert [path for path in left if GONE.encode() in decoded(path, path.read_bytes())] == []


def test_what_others_have_is_left(project: Layout) -> None:
    manifest = project.root / "posts.csv"
    lines = manifest.read_bytes().split(b"\r\n")
    stored = {path: rows(path) for path in (project.cache / "embeddings").glob("*.sqlite")}
    assert forget(project, GONE, "p6", "--yes")[0] == 0
    kept = [line for line in lines if not line.startswith((GONE.encode(), b"p6,", b"two lines", b"my "))]
    assert manifest.read_bytes() == b"\r\n".join(kept)
    assert pd.read_csv(manifest)["id"].tolist() == [f"p{at}" for at in range(POSTS) if at not in (5, 6)]
    assert (project.root / "posts" / "7.png").is_file()
    # Of p6 the picture alone goes: its words are another post's, too.
    assert sum(stored.values()) - sum(map(rows, stored)) == 2 + 1
    table = pq.read_table(project.embeddings("posts", "text"))
    assert len(table) == POSTS - 2
    assert pd.read_parquet(project.predictions("train_text"))["sample_id"].tolist() == ["p1"]
    assert (project.plots("evaluate") / "curve.csv").is_file()
    # The stages go on from there.
    for stage in ("split", "embed"):
        assert CliRunner().invoke(app, [stage, "--project", str(project.root)]).exit_code == 0


def rows(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT count(*) FROM checked").fetchone()[0]


def test_without_yes_it_is_a_list(project: Layout, tmp_path: Path) -> None:
    before = everything(project)
    (tmp_path / "ids.txt").write_text(f"{GONE}\n\np1\n")
    code, said = forget(project, "--file", str(tmp_path / "ids.txt"))
    assert code == 0
    assert "rows of the manifest: 2" in said
    assert "add --yes" in said
    assert everything(project) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["p99", "--yes"], "'p99' is the id of no post"), ([], "no id was given"), (["p1", " p98", "--yes"], "'p98'")],
)
def test_what_cannot_be_forgotten_changes_nothing(project: Layout, arguments: list[str], expected: str) -> None:
    before = everything(project)
    code, said = forget(project, *arguments)
    assert code == 1
    assert expected in said
    assert everything(project) == before


def test_settings_of_dvc_that_cannot_be_read_are_one_line(project: Layout) -> None:
    (project.root / ".dvc" / "config").write_text("cache = nothing\n")
    before = everything(project)
    code, said = forget(project, "p1", "--yes")
    assert code == 1
    assert "config: are no settings of DVC (" in said and said.count("\n") == 1
    assert everything(project) == before


def test_a_damaged_table_is_removed_as_one_that_may_hold_the_post(project: Layout) -> None:
    kept, made = project.root / ".dvc" / "cache" / "files" / "md5" / "ab" / "cd", project.predictions("train_text")
    kept.parent.mkdir(parents=True, exist_ok=True)
    damaged = made.read_bytes()[:100] + bytes(100) + b"PAR1"
    for path in (kept, made):
        path.write_bytes(damaged)
    assert forget(project, GONE, "--yes")[0] == 0
    assert not kept.exists() and not made.exists()


@pytest.mark.parametrize(("before", "held"), [(b" ", True), (b"x", False), (b"-", False)])
@pytest.mark.parametrize("after", [b"", b".5", b". ", b"-", b" "])
def test_a_word_is_found_wherever_the_parts_of_a_file_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, held: bool, after: bytes
) -> None:
    traces = forgetting.Traces(frozenset({"p7"}), frozenset({'a "b"'}), frozenset(), ())
    pattern, path = traces.pattern(), tmp_path / "log"
    monkeypatch.setattr(forgetting, "BLOCK", 8)
    for word in (b"p7", b'a \\"b\\"'):
        for at in range(2 * traces.reach() + 16):
            path.write_bytes(b"." * at + before + word + after + b"." * (20 if after else 0))
            found = forgetting._holds_words(path, pattern, traces.reach())
            assert found == (held and after not in (b".5", b"-")) == bool(pattern.search(path.read_bytes())), at


def test_a_damaged_list_of_a_folder_is_removed_as_one_that_may_name_the_post(project: Layout) -> None:
    path = project.root / ".dvc" / "cache" / "files" / "md5" / "ab" / "cd.dir"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('[{"md5"')
    assert forget(project, GONE, "--yes")[0] == 0
    assert not path.exists()
