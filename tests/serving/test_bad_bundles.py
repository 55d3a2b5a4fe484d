"""Bundles that were edited by hand, all hashes made to match: each is refused in one line that names the file.

Nothing is run that came with a bundle, nothing is read outside of it, and nothing absurd is taken for a model.
"""

import hashlib
import json
import math
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from enum import Enum
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.core.errors import InputError
from pipeline.serving import bundle
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from pipeline.serving.score_predictor import Sample, ScorePredictor
from tests import tracks
from tests.serving import scores

Edit = Callable[[Path], object]


class Sign(Enum):
    """Has one name in every process, which names of tests must have."""

    ABSENT = "absent"


ABSENT = Sign.ABSENT
"""In place of a value: the key is taken away."""


def edited(path: Path, keys: str, value: Any) -> None:
    """Sets what stands at dotted keys of a JSON file; NaN and infinity are written as Python does."""
    content: Any = json.loads(path.read_text())
    *parents, last = keys.split(".")
    block: Any = reduce(lambda inner, key: inner[int(key) if isinstance(inner, list) else key], parents, content)
    place: Any = int(last) if isinstance(block, list) else last
    if value is ABSENT:
        del block[place]
    else:
        block[place] = value
    path.write_text(json.dumps(content))


def weights_of(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def seal(folder: Path) -> None:
    """Writes the hashes anew, as whoever edits a bundle can."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != bundle.INDEX)
    index = json.loads((folder / bundle.INDEX).read_text())
    index["files"] = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    (folder / bundle.INDEX).write_text(json.dumps(index))


def assert_one_line(error: InputError, told: str) -> None:
    assert told in str(error)
    assert "\n" not in str(error)
    assert "dvc repro" not in str(error) and "params.yaml" not in str(error)


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


MODEL: dict[str, list[Any]] = {
    "format": [ABSENT, 2, "3", None, True, [3]],
    "stage": [ABSENT, 7, None],
    "labels": [ABSENT, [], ["happy"], ["happy", "happy"], [1, 2], ["happy", None], ["happy", ""], "happy sad"],
    "labels.0": ["\ud800", "x" * 501, 1.5],
    "modalities": [ABSENT, [], ["smell"], ["text", "text"], "text", [["text"]]],
    "calibration": [ABSENT, None, [], {}, {"scale": [1, 1], "bias": [0, 0]}],
    "calibration.scale": [[0, 1], [-1, 1], [1], [1, 1, 1], [math.nan, 1], [math.inf, 1], ["1", "1"], [1e300, 1], 1],
    "calibration.bias": [[math.nan, 0], [0], [True, "a"], None, [1e308, -1e308]],
    "calibration.offset": [[-math.inf, 0], [], [0, 0, 0]],
    "fitted": [ABSENT, None, {"rows": -1, "digest": ""}, {"rows": 1}],
    "net": [{}, [], 7, "x"],
    "unknown": [1],
    "__class__": ["os.system"],
    "parents": ["fuse", [1]],
    "seed": ["x", 1.5, math.nan],
}
"""Key → values that no model.json of the posts has."""

NETS: dict[str, dict[str, list[Any]]] = {
    "text": {
        "net.width": [0, -1, 10**12, 10**6, "32", 31, 1.5, None, ABSENT],
        "net.hidden": [-1, 10**9, 10**6, 64, "0"],
        "net.dropout": [-0.1, 1.0, math.nan, "x"],
        "net.more": [1],
        "net": [None],
        "candidate": ["magic", None, "lora", "tfidf_logreg", "full", 3],
        "lora_rank": [8, -1, 10**9],
        "modalities": [["image"], ["text", "image"]],
    },
    "image": {"candidate": ["tfidf_logreg", "joint_logreg"], "modalities": [["video"]]},
    "fuse": {
        "net": [None],
        "net.kind": ["linear", "magic", None, ABSENT],
        "net.widths": [{}, {"text": 32}, {"text": -1, "image": 16, "video": 32}, [1, 2, 3], {"../x": 1}],
        "net.widths.text": [10**12, 31, 0, "32", math.inf],
        "net.classes": [1, 3, 10**12, 0, -2, "2"],
        "net.strategy": ["magic", None, 7],
        "net.width": [0, 15, 10**9, -16],
        "net.heads": [0, 3, -1, 10**9],
        "net.hidden": [0, 10**12, -1],
        "net.modality_dropout": [1.0, -1, math.nan],
    },
}
EDITS = [
    *(("fuse", key, value) for key, values in MODEL.items() for value in values),
    *(("text", key, value) for key, values in list(MODEL.items())[2:7] for value in values),
    *((net, key, value) for net, keys in NETS.items() for key, values in keys.items() for value in values),
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{edit[0]}-{edit[1]}-{str(edit[2])[:20]!r}")
def test_an_edited_description_is_refused(own: Path, edit: tuple[str, str, Any]) -> None:
    net, keys, value = edit
    path = own / net / "model.json"
    edited(path, keys, value)
    seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, net if keys == "modalities" else str(own / net))


SETTINGS: dict[str, list[Any]] = {
    "embed": [ABSENT, None, [], {"video": 1}],
    "embed.text.encoder": [
        "/etc",
        "../..",
        "encoders/../encoders/text",
        "minilm",
        "a/b",
        "encoders",
        "",
        ".",
        7,
        "fuse",
    ],
    "embed.image.encoder": ["efficientnet-lite0", "~/x", "encoders/none", "encoders/text/../image"],
    "embed.text.revision": ["main"],
    "embed.text.max_tokens": [0, 10**9, "x", math.nan, 1.5],
    "embed.max_pixels": [0, -1, math.inf],
    "embed.video.frames": [0, 10**6],
    "embed.workers": [0, -1],
    "nonconformity": [ABSENT, {}, {"happy": []}, {"happy": [], "sad": [], "third": []}, []],
    "nonconformity.happy": [[0.5, 0.1], [math.nan], [-0.1], [1.1], ["0.5"], None, 7],
    "more": [1],
}


@pytest.mark.parametrize(
    "edit", [(key, value) for key, values in SETTINGS.items() for value in values], ids=lambda edit: str(edit)[:60]
)
def test_edited_settings_are_refused(own: Path, edit: tuple[str, Any]) -> None:
    edited(own / bundle.SETTINGS, *edit)
    seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, bundle.SETTINGS)


INDEX: dict[str, list[Any]] = {
    "format": [ABSENT, "3", 3.5, None, {}],
    "tracks": [ABSENT, [], ["smell"], [["posts"]], "posts", ["posts", 7], [{}]],
    "files": [ABSENT, {}, [], {"a": 7}, {"a": "x"}, {"fuse/model.json": None}],
    "more": [1],
}


@pytest.mark.parametrize(
    "edit", [(key, value) for key, values in INDEX.items() for value in values], ids=lambda edit: str(edit)[:60]
)
def test_an_edited_index_is_refused(own: Path, edit: tuple[str, Any]) -> None:
    edited(own / bundle.INDEX, *edit)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, bundle.INDEX)


JSON = {
    "deep": '{"format": 3, "a": ' + "[" * 5000 + "]" * 5000 + "}",
    "twice": '{"format": 3, "format": 3}',
    "nan": '{"format": NaN}',
    "list": "[3]",
    "empty": "",
    "utf-16": "{}".encode("utf-16").decode("latin-1"),
    "digits": '{"format": ' + "9" * 5000 + "}",
    "huge exponent": '{"format": 1e999}',
    "cut": '{"format": 3, "labels": ["hap',
    "surrogate": '{"format": 3, "\\ud800": 1}',
}


@pytest.mark.parametrize("text", JSON)
@pytest.mark.parametrize("name", ["fuse/model.json", "video/model.json", bundle.SETTINGS, bundle.INDEX])
def test_what_is_no_description_at_all_is_refused(own: Path, name: str, text: str) -> None:
    (own / name).write_text(JSON[text], encoding="latin-1")
    if name != bundle.INDEX:
        seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, name)


def to_nan(tensors: dict[str, torch.Tensor]) -> None:
    name = sorted(name for name, value in tensors.items() if value.is_floating_point())[0]
    tensors[name].view(-1)[0] = math.nan


def to_infinity(tensors: dict[str, torch.Tensor]) -> None:
    name = sorted(name for name, value in tensors.items() if value.is_floating_point())[-1]
    tensors[name].view(-1)[-1] = -math.inf


def without_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[sorted(tensors)[0]]


def with_one_more(tensors: dict[str, torch.Tensor]) -> None:
    tensors["more"] = torch.zeros(3)


def turned(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name, value in tensors.items() if value.ndim == 2 and value.shape[0] != value.shape[1])
    tensors[name] = tensors[name].T.contiguous()


WEIGHTS = [to_nan, to_infinity, without_one, with_one_more, turned]


@pytest.mark.parametrize("change", WEIGHTS, ids=lambda change: change.__name__)
@pytest.mark.parametrize("net", ["fuse", "text", "video"])
def test_weights_that_are_not_those_of_the_description_are_refused(
    own: Path, net: str, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    weights_of(own / net / "model.safetensors", change)
    seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, f"{own / net}/model.safetensors: ")


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}", (2**60).to_bytes(8, "little") + b"{}"])
@pytest.mark.parametrize("net", ["fuse", "text", "encoders/text", "encoders/image"])
def test_weights_that_are_none_are_refused(own: Path, net: str, content: bytes) -> None:
    (own / net / "model.safetensors").write_bytes(content)
    seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, net)


@pytest.mark.parametrize("change", [to_nan, without_one], ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_an_encoder_with_other_weights_is_refused_and_the_bundle_blamed(
    own: Path, kind: str, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    weights_of(own / "encoders" / kind / "model.safetensors", change)
    seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, f"encoders/{kind}")


CONFIG: list[tuple[str, str, str, Any]] = [
    *(("text", "config.json", "n_layers", value) for value in (10**9, 10**6, -1, "x", None)),
    *(("text", "config.json", "dim", value) for value in (10**12, 0, -4, "x", 7)),
    *(("text", "config.json", "vocab_size", value) for value in (1, 10**12, "x")),
    *(("text", "config.json", "max_position_embeddings", value) for value in (10**15, "x")),
    *(("text", "config.json", "model_type", value) for value in ("magic", None, 7, "clip")),
    *(("image", "config.json", "model_type", value) for value in ("bert", "magic", [])),
    *(("image", "config.json", "vision_config.num_hidden_layers", value) for value in (10**7, "x")),
    *(("image", "config.json", "vision_config.image_size", value) for value in (10**8, 0, "x")),
    *(("image", "config.json", "projection_dim", value) for value in (10**12, -1)),
    *(("image", "preprocessor_config.json", "image_mean", value) for value in ([0.5], "x", [math.nan] * 3)),
    *(("image", "preprocessor_config.json", "image_std", value) for value in ([0, 0, 0], [], [-1, 1, 1])),
    *(("image", "preprocessor_config.json", "rescale_factor", value) for value in (0, "x")),
    *(("image", "preprocessor_config.json", "size", value) for value in ({"shortest_edge": 10**9}, 10**9, {}, "x")),
    ("image", "preprocessor_config.json", "resample", 99),
]


@pytest.mark.parametrize("edit", CONFIG, ids=lambda edit: f"{edit[2]}-{str(edit[3])[:20]}")
def test_an_absurd_configuration_of_an_encoder_is_refused(own: Path, edit: tuple[str, str, str, Any]) -> None:
    kind, name, keys, value = edit
    edited(own / "encoders" / kind / name, keys, value)
    seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, f"encoders/{kind}")


class Evil:
    """What a pickle runs when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "modeling.py", "x.so", "tokenizer.pkl"])
@pytest.mark.parametrize("alone", [True, False])
def test_nothing_that_could_run_is_opened(own: Path, tmp_path: Path, name: str, alone: bool) -> None:
    folder = own / "encoders" / "text"
    (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    if alone:
        (folder / "model.safetensors").unlink()
    seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, f"'encoders/text/{name}', which is none of .safetensors")
    assert not (tmp_path / "ran").exists()


def test_code_that_a_configuration_names_is_not_run(own: Path) -> None:
    path = own / "encoders" / "text" / "config.json"
    edited(path, "auto_map", {"AutoModel": "modeling.Evil"})
    edited(path, "model_type", "evil")
    seal(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, "encoders/text")


def test_a_linked_folder_leads_nowhere(own: Path, tmp_path: Path) -> None:
    shutil.move(own / "encoders" / "text", tmp_path / "elsewhere")
    (own / "encoders" / "text").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, "leads out of the bundle")


@pytest.mark.parametrize("name", ["encoders/more", ".hidden/x.json", "more"])
def test_a_link_beside_its_files_is_no_part_of_it(own: Path, name: str) -> None:
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).symlink_to("/etc", target_is_directory=True)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert_one_line(error.value, "not a file of this bundle")


def test_an_unedited_bundle_is_read_when_sealed_again(own: Path, exported: Path) -> None:
    """So that none of the cases above is refused for how it was edited."""
    for path in own.rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text())))
    seal(own)
    before, after = (Predictor.load(folder).predict([Post("so happy")])[0] for folder in (exported, own))
    assert after.as_json() == before.as_json()


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    track = scores.worded(tmp_path_factory.mktemp("scored"))
    folder = tmp_path_factory.mktemp("made") / "bundle"
    step = {"pearson": 0.5, "mae": 0.7}
    target = {"n": 9, "groups": 8, "protocol": "holdout", "finetuned": step}
    path = track.layout.details("evaluate")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"sentiment": {"target": target}}))
    bundle.export(tracks.params(track), track.layout, folder, ["sentiment"])
    yield folder


@pytest.fixture
def own_scored(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "scores"))


SCORES: dict[str, dict[str, list[Any]]] = {
    "sentiment/model.json": {
        "modalities": [[], ["smell"], ["text", "text"], ["text"], ABSENT],
        "used": [[], ["smell"], ["visual", "visual", "text"], None, 7],
        "level": ["all", None],
        "scores": [[1], [1, -1], [math.nan, 1], ["a", "b"], ABSENT],
        "net": [ABSENT, None, {}],
        "net.widths": [{}, {"text": 10**12}, []],
        "net.widths.audio": [0, -1, 10**9, "x", ABSENT],
        "net.columns": [{}, None],
        "net.columns.audio": [0, 1, -1, "x", ABSENT],
        "net.text_head": [None, "x"],
        "net.source": ["x", {"widths": {}}],
        "words": [None, {}],
        "words.weights": ["magic", None],
    },
    "score.json": {
        "text": [None, {}],
        "text.encoder": ["/etc", "..", "minilm"],
        "calibration": [ABSENT, [1, 0], [math.nan], [-1], [math.inf], ["1"], None],
        "more": [1],
    },
}


@pytest.mark.parametrize(
    "edit",
    [(name, key, value) for name, keys in SCORES.items() for key, values in keys.items() for value in values],
    ids=lambda edit: str(edit)[:70],
)
def test_an_edited_model_of_scores_is_refused(own_scored: Path, edit: tuple[str, str, Any]) -> None:
    name, keys, value = edit
    edited(own_scored / name, keys, value)
    seal(own_scored)
    with pytest.raises(InputError) as error:
        ScorePredictor.load(own_scored)
    assert_one_line(error.value, "sentiment" if "sentiment" in name else "")


@pytest.mark.parametrize("change", WEIGHTS, ids=lambda change: change.__name__)
def test_other_weights_of_scores_are_refused(
    own_scored: Path, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    weights_of(own_scored / "sentiment" / "model.safetensors", change)
    seal(own_scored)
    with pytest.raises(InputError) as error:
        ScorePredictor.load(own_scored)
    assert_one_line(error.value, "sentiment/model.safetensors")


def test_columns_beyond_the_last_are_refused(own_scored: Path) -> None:
    def beyond(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith(".index"))
        tensors[name][0] = 10**6

    weights_of(own_scored / "sentiment" / "model.safetensors", beyond)
    seal(own_scored)
    with pytest.raises(InputError) as error:
        ScorePredictor.load(own_scored)
    assert_one_line(error.value, "reads columns of")


def test_weights_that_overflow_give_no_answer(own: Path, own_scored: Path) -> None:
    def huge(tensors: dict[str, torch.Tensor]) -> None:
        for value in tensors.values():
            if value.is_floating_point():
                value.fill_(3e38)

    for folder, name in ((own, "fuse"), (own_scored, "sentiment")):
        weights_of(folder / name / "model.safetensors", huge)
        seal(folder)
    with pytest.raises(InputError, match="not finite"):
        Predictor.load(own).predict([Post("so happy")])
    with pytest.raises(InputError, match="not finite"):
        ScorePredictor.load(own_scored).predict([Sample("so happy", audio=np.ones(5))])
