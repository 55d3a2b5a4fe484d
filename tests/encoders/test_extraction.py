"""Raw clips become a corpus: names, versions, reasons, resuming; and two extracted alike need no adapters."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.schemas import Stream
from pipeline.corpora.clip_table import check_clips
from pipeline.corpora.features import read_corpus
from pipeline.encoders import extraction, streams
from pipeline.encoders.clip_streams import ClipContents
from pipeline.encoders.extraction import extract
from pipeline.encoders.streams import ClipEncoder
from pipeline.media.clips import Clip, read_clip
from pipeline.params import EmbedParams, Params
from pipeline.sentiment.data import read_target
from pipeline.sentiment.descriptions import AdaptersDescription
from pipeline.stages import embed, finetune_e2e, split, train_adapters, train_source
from pipeline.synthetic.posts import write_clip
from pipeline.synthetic.voice import RATE
from tests import tiny, tracks
from tests.imports import ROOT


@dataclass
class Lengths:
    """A stream whose numbers are known: the bytes of the file, and half of them; see ``opened``."""

    modality: Any = "audio"
    refuses: str = "no sound"
    identity: dict[str, Any] = field(default_factory=lambda: {"name": "lengths", "version": 3, "width": 2})
    columns: tuple[str, ...] = ("size.mean", "half.mean")
    width = 2
    frame_request = None
    sound_seconds = 1.0

    def prepare(self, clip: Clip) -> np.ndarray:
        size = len(clip.sound())
        if size % 5 == 0:
            raise MediaError(f"{self.refuses}: made so")
        return np.array([size, size / 2], dtype=np.float32)

    def encode(self, items: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
        return np.stack(items)


def clips(folder: Path, sizes: Sequence[int], **columns: Sequence[Any]) -> Path:
    """A table of files of so many bytes."""
    for at, size in enumerate(sizes):
        (folder / f"{at}.mp4").write_bytes(bytes([at % 256]) * size)
    rows = {"id": [f"c{at}" for at in range(len(sizes))], "video": [f"{at}.mp4" for at in range(len(sizes))]}
    pd.DataFrame(rows | columns).to_csv(folder / "clips.csv", index=False)
    return folder / "clips.csv"


def run(
    folder: Path, streams: Sequence[Lengths], name: str = "corpus.parquet", max_bad_share: float = 0.05
) -> extraction.ExtractionReport:
    names: list[Stream] = ["sound", "speech", "frames"]
    encoder = ClipEncoder(dict(zip(names, streams, strict=False)), batch=2)
    contents = ClipContents.of(encoder, folder, torch.device("cpu"), EmbedParams())
    table, out = folder / "clips.csv", folder / name
    total = check_clips(table, folder, out)
    return extract(table, total, out, contents, contents, max_bad_share, Layout(folder))


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were opened as clips, in order. Such a file of N zeros and more is heard as N samples."""
    names: list[str] = []

    def counted(path: Path, **asked: Any) -> Clip:
        names.append(path.name)
        data = path.read_bytes()
        if len(set(data)) > 1:
            return read_clip(path, **asked)
        return Clip(MediaError("no video stream"), np.zeros(len(data), np.float32))

    monkeypatch.setattr(streams, "read_clip", counted)
    return names


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))


def test_columns_have_names_and_say_what_made_them(tmp_path: Path, opened: list[str]) -> None:
    table = clips(
        tmp_path, [3, 4, 5], transcript=["so happy", None, "so sad"], score=[1.5, None, -2], split=["dev"] * 3
    )
    done = run(tmp_path, [Lengths()])
    assert (done.rows, done.present, done.reasons) == (3, {"audio": 2}, {"no sound: made so": 1})
    frame = pd.read_parquet(tmp_path / "corpus.parquet")
    assert list(frame) == ["id", "group", "score", "split", "text", "audio.size.mean", "audio.half.mean", "reason"]
    assert frame["audio.half.mean"].tolist()[:2] == [1.5, 2.0]
    assert frame["reason"].fillna("").tolist() == ["", "", "no sound: made so"]
    stored = json.loads(pq.read_schema(tmp_path / "corpus.parquet").metadata[b"extractors"])
    assert stored["audio"]["name"] == "lengths"
    assert stored["audio"]["version"] == "3"
    assert stored["audio"]["columns"] == ["size.mean", "half.mean"]
    corpus = read_corpus(tmp_path / "corpus.parquet", "target.corpus")
    assert corpus.rows["text"].tolist() == ["so happy", None, "so sad"]
    assert corpus.rows["split"].tolist() == ["val"] * 3
    np.testing.assert_array_equal(corpus.rows["score"], [1.5, np.nan, -2])
    assert corpus.present["audio"].tolist() == [True, True, False]
    assert corpus.extractors["audio"].name == "lengths"
    before = (tmp_path / "corpus.parquet").read_bytes()
    opened.clear()
    run(tmp_path, [Lengths()])
    assert (tmp_path / "corpus.parquet").read_bytes() == before
    assert opened == []  # what was made is kept, and so is what there is none of
    assert table.exists()


def test_a_clip_is_opened_once_for_all_streams_and_never_for_what_it_is_known_to_lack(
    tmp_path: Path, opened: list[str]
) -> None:
    clips(tmp_path, [3, 5, 4, 6])
    second = Lengths(identity={"name": "b", "version": 1, "width": 2}, columns=("x.mean", "y.mean"))
    run(tmp_path, [Lengths(), second])
    assert sorted(opened) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    opened.clear()
    third = Lengths("visual", refuses="corrupt", identity={"name": "c", "version": 1, "width": 2})
    run(tmp_path, [Lengths(), second, third], max_bad_share=0.5)
    assert sorted(opened) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]  # the new stream alone
    opened.clear()
    run(tmp_path, [Lengths(), second, third], max_bad_share=0.5)
    assert opened == ["1.mp4"]  # what is corrupt may be read by another release
    assert pd.read_parquet(tmp_path / "corpus.parquet")["reason"].fillna("").tolist()[1] == (
        "audio: no sound: made so; visual: corrupt: made so"
    )


def test_streams_of_one_modality_stand_side_by_side(tmp_path: Path) -> None:
    clips(tmp_path, [3, 5])
    second = Lengths(identity={"name": "b", "version": 1, "width": 2}, columns=("x.mean", "y.mean"))
    run(tmp_path, [Lengths(), second, Lengths("visual")])
    frame = pd.read_parquet(tmp_path / "corpus.parquet")
    assert frame.iloc[0][["audio.size.mean", "audio.y.mean", "visual.size.mean"]].tolist() == [3, 1.5, 3]
    assert frame["reason"].tolist()[1] == "no sound: made so"  # said once where all say it
    stored = json.loads(pq.read_schema(tmp_path / "corpus.parquet").metadata[b"extractors"])
    assert (stored["audio"]["name"], stored["audio"]["version"]) == ("lengths+b", "3+1")


def test_bad_clips_are_recorded_and_too_many_stop_it(tmp_path: Path) -> None:
    sizes = [size for size in range(1, 60) if size % 5]
    clips(tmp_path, sizes)
    (tmp_path / "7.mp4").unlink()
    done = run(tmp_path, [Lengths()])
    assert (done.unreadable, done.examples) == (1, ["id c7 (file not found)"])
    for at in range(4):
        (tmp_path / f"{at}.mp4").unlink()
    (tmp_path / "corpus.parquet").unlink()
    message = r"clips\.csv: [0-9]+ of 48 clips cannot be read .*embed\.max_bad_share 0\.05: .*; the first: id c0 \(file"
    with pytest.raises(InputError, match=message):
        run(tmp_path, [Lengths()])
    assert not list(tmp_path.glob("*corpus*"))


def test_a_table_of_another_folder_is_told_how_to_name_it(tmp_path: Path) -> None:
    table = clips(tmp_path, [3, 4])
    (tmp_path / "elsewhere").mkdir()
    table.rename(tmp_path / "elsewhere" / "clips.csv")
    command = ["extract", str(tmp_path / "elsewhere" / "clips.csv"), "--out", str(tmp_path / "corpus.parquet")]
    result = CliRunner().invoke(app, [*command, "--project", str(ROOT)])
    assert result.exit_code == 1
    assert f"(file not found); none lies in {tmp_path / 'elsewhere'}: --media names the folder" in result.stderr
    clips(tmp_path / "elsewhere", [3, 4])
    (tmp_path / "elsewhere" / "0.mp4").unlink()
    with pytest.raises(InputError, match=r"\(file not found\)$"):  # one of two is there: it is the right folder
        run(tmp_path / "elsewhere", [Lengths()])


def test_a_bad_table_is_said_before_any_weights_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips(tmp_path, [3, 4], id=["a", "a"])
    monkeypatch.setattr(extraction.streams, "load", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(InputError, match="row 2 has the id 'a' of row 1"):
        extraction.run(Params(), Layout(tmp_path), tmp_path / "clips.csv", tmp_path / "corpus.parquet", tmp_path)


def test_a_clip_without_sound_is_no_bad_clip(tmp_path: Path) -> None:
    clips(tmp_path, [5, 10, 15])
    assert run(tmp_path, [Lengths()]).unreadable == 0
    faulty = Lengths(refuses="corrupt", identity={"name": "f", "version": 1, "width": 2})
    with pytest.raises(InputError, match="3 of 3 clips cannot be read"):
        run(tmp_path, [faulty])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "a"]}, "row 2 has the id 'a' of row 1; give each clip its own"),
        ({"id": ["a", None]}, "row 2 has no id; give each clip one of its own"),
        ({"score": ["1", "good"]}, "row 2 has the score 'good'; give a number up to 1e+15, or none"),
        ({"score": ["inf", "1"]}, "row 1 has the score 'inf'; give a number up to 1e+15, or none"),
        ({"score": ["1", "-1e16"]}, "row 2 has the score '-1e16'; give a number up to 1e+15, or none"),
        ({"split": ["train", "later"]}, "row 2 has the split 'later'; give train, val or test, or none"),
        ({"text": ["a", "b"], "transcript": ["a", "b"]}, "has the columns text and transcript, which are one"),
    ],
)
def test_a_bad_table_is_one_line_and_leaves_nothing(
    tmp_path: Path, columns: dict[str, Sequence[Any]], message: str
) -> None:
    clips(tmp_path, [3, 4], **columns)
    with pytest.raises(InputError) as caught:
        run(tmp_path, [Lengths()])
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'clips.csv'}: ")
    assert not list(tmp_path.glob("*corpus*"))


def test_a_path_that_leads_out_is_a_bad_clip_and_an_output_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    clips(tmp_path / "in", [3] * 30, video=["../x.mp4", *(f"{at}.mp4" for at in range(1, 30))])
    done = run(tmp_path / "in", [Lengths()])
    assert done.reasons == {"path leads out of the folder of the clips": 1}
    with pytest.raises(InputError, match=r"1\.mp4: is the input .*1\.mp4"):
        run(tmp_path / "in", [Lengths()], name="1.mp4")
    result = CliRunner().invoke(app, ["extract", str(tmp_path / "in" / "clips.csv"), "--out", str(tmp_path / "a.csv")])
    assert result.exit_code == 2
    assert "--out" in result.stderr


# --- from raw clips to scores ----------------------------------------------------------------------------------------


def spoken(folder: Path, count: int, seed: int) -> Path:
    """Clips of a second whose tone is the higher, and whose picture the redder, the higher the score."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    rows = [["id", "video", "transcript", "group", "score"]]
    for at in range(count):
        score = round(float(rng.uniform(-3, 3)), 3)
        time = np.arange(RATE) / RATE
        pitch = 220 * 2 ** ((score + rng.normal(0, 0.3)) / 6)
        tone = 0.3 * sum(np.sin(2 * np.pi * pitch * order * time) / order for order in range(1, 6))
        sound = (tone + 0.01 * rng.normal(size=RATE)).astype(np.float32)
        red = int(np.clip(128 + 30 * score + rng.normal(0, 15), 0, 255))
        frames = [Image.new("RGB", (224, 224), (red, int(rng.integers(256)), 80)) for _ in range(6)]
        write_clip(folder / f"{at}.mp4", iter(frames), None if at % 9 == 8 else sound)
        rows.append(
            [f"s{at}", f"{at}.mp4", "so happy" if score > 0 else "so sad", f"{folder.name} {at // 2}", str(score)]
        )
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three commands leave: two corpora extracted, a run on them."""
    root = tmp_path_factory.mktemp("clips")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOCARE_CACHE", str(root / "cache"))
        image = str(tiny.clip(root / "clip"))
        blocks = {name: tracks.SMALL[name] for name in tracks.SMALL}
        settings = {
            "device": "cpu",
            "processes": 1,
            "tracks": ["sentiment"],
            "embed": {
                "text": {"encoder": str(tiny.distilbert(root / "bert"))},
                "video": {"encoder": image, "frames": 2},
            },
            "source": {"corpus": "source.parquet", "texts": "source.parquet"},
            **blocks,
            "target": {"corpus": "target.parquet", "folds": 2, "repeats": 1},
        }
        params = Params.model_validate(settings)
        artifacts.write_json(root / "params.yaml", json.loads(params.model_dump_json()))
        for name, count, seed in (("source", 60, 1), ("target", 36, 2)):
            table = spoken(root / name, count, seed)
            command = ["extract", str(table), "--out", str(root / f"{name}.parquet"), "--project", str(root)]
            result = CliRunner().invoke(app, command, catch_exceptions=False)
            assert result.exit_code == 0, result.output
            assert f"{count} rows; audio: {count - count // 9} rows of 143 columns" in result.output
            assert f"{count // 9} rows: audio: no sound" in result.output
        for stage in (split, embed, train_source, train_adapters, finetune_e2e):
            stage.run(params, Layout(root))
    return root


def test_corpora_extracted_alike_need_no_adapters(project: Path) -> None:
    layout = Layout(project)
    target, source = read_target(layout), artifacts.read_embeddings(layout.embeddings("source", "audio"))
    assert target.as_source == {"text", "audio", "visual"}
    own = artifacts.read_embeddings(layout.embeddings("target", "audio"))
    assert own.encoder["columns"] == source.encoder["columns"]
    described = read_description(layout.model("train_adapters"), AdaptersDescription)
    assert {name: net.identity for name, net in described.net.items()} == dict.fromkeys(described.modalities, True)
    assert all(report.epochs == 0 for report in described.adapters.values())
    details = artifacts.read_json(layout.details("train_adapters"))["sentiment"]
    assert details["extracted_alike"] == "text, audio, visual"
    # Nothing is between the target's columns and the source model: with and without labels it says the same.
    scores = artifacts.read_scores(layout.predictions("train_adapters"))
    steps = {name: part.drop(columns="step").reset_index(drop=True) for name, part in scores.groupby("step")}
    pd.testing.assert_frame_equal(steps["zero_shot"], steps["adapted"])


def test_corpora_extracted_otherwise_have_adapters(project: Path, tmp_path: Path) -> None:
    table = pq.read_table(project / "target.parquet")
    stored = json.loads(table.schema.metadata[b"extractors"])
    stored["audio"]["version"] = "0"
    pq.write_table(table.replace_schema_metadata({"extractors": json.dumps(stored)}), tmp_path / "target.parquet")
    settings = json.loads((project / "params.yaml").read_text())
    for name in ("source.parquet",):
        (tmp_path / name).write_bytes((project / name).read_bytes())
    params = Params.model_validate(settings)
    for stage in (split, embed):
        stage.run(params, Layout(tmp_path))
    assert read_target(Layout(tmp_path)).as_source == {"text", "visual"}


def test_new_clips_are_scored(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(project / "cache"))
    table = spoken(tmp_path / "new", 12, seed=3)
    for command in (
        ["extract", str(table), "--out", str(tmp_path / "new.parquet")],
        ["predict", "--corpus", str(tmp_path / "new.parquet"), "--out", str(tmp_path / "scores.csv")],
    ):
        result = CliRunner().invoke(app, [*command, "--project", str(project)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    scores, truth = pd.read_csv(tmp_path / "scores.csv"), pd.read_csv(table)
    assert scores["id"].tolist() == truth["id"].tolist()
    assert scores["reason"].isna().all()
    assert np.corrcoef(scores["score"], truth["score"])[0, 1] > 0.5
    assert scores["audio_state"].tolist()[8] == "absent"
