"""A bundle predicts as the project does, anywhere, and is refused when anything in it is not as it was made."""

import json
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.encoders import image, weights
from pipeline.nets.fusion import AveragedFusion, FirstPresent, FusedNet, Fusion, LinearFusion
from pipeline.serving import bundle, card, onnx
from pipeline.serving.predictor import Predictor
from pipeline.training.device import pick
from tests import tiny
from tests.reporting.conftest import without_intervals
from tests.serving.conftest import Trained


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made") / "bundle"
    bundle.export(trained.params, trained.layout, made)
    return made


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "elsewhere"))


def test_a_bundle_predicts_as_the_project_does(trained: Trained, predictor: Predictor, own: Path) -> None:
    loaded = Predictor.load(own)
    posts = trained.posts()
    expected = predictor.predict(posts, coverage=0.8)
    assert [made.as_json() for made in loaded.predict(posts, coverage=0.8)] == [made.as_json() for made in expected]
    assert loaded.explain(posts[1]).as_json() == predictor.explain(posts[1]).as_json()
    # To the last digit: a post that stands just at a limit of the sets is within it, or out of it, in both.
    for read, known in zip(loaded.model.nonconformity, predictor.model.nonconformity, strict=True):
        assert read.tolist() == known.tolist()


def test_a_bundle_that_is_replaced_while_it_is_used_is_the_old_one_the_new_one_or_a_line(
    trained: Trained, folder: Path, own: Path
) -> None:
    """Who has it open keeps what was read; who opens it in the very moment is told, and has it the next time."""
    served, posts = Predictor.load(own), trained.posts()
    expected = [made.as_json() for made in served.predict(posts)]
    replacing = threading.Thread(target=lambda: [bundle.export(trained.params, trained.layout, own) for _ in range(3)])
    replacing.start()
    loaded = 0
    while replacing.is_alive():
        assert [made.as_json() for made in served.predict(posts)] == expected
        try:
            opened = Predictor.load(own)
        except InputError as error:
            assert str(own) in str(error) and "\n" not in str(error)
        else:
            loaded += 1
            assert [made.as_json() for made in opened.predict(posts)] == expected
    replacing.join()
    assert loaded
    assert [made.as_json() for made in Predictor.load(own).predict(posts)] == expected
    names = [{path.relative_to(place) for path in place.rglob("*")} for place in (own, folder)]
    assert names[0] == names[1] and [path.name for path in own.parent.iterdir()] == [own.name]


def test_no_path_of_this_machine_is_in_a_bundle(trained: Trained, own: Path) -> None:
    for path in own.rglob("*"):
        if path.is_file():
            assert str(trained.layout.root).encode() not in path.read_bytes()


def test_the_card_names_labels_with_too_few_calibration_rows(trained: Trained) -> None:
    model = trained.predictor().model
    few = replace(model, nonconformity=[row[:8] for row in model.nonconformity])
    text = card.write(few, trained.params, trained.layout)
    assert "needs 9 calibration rows to be ruled out: happy and sad had fewer, and so are in every set." in text


def test_the_card_gives_intervals_and_limits(own: Path) -> None:
    text = (own / "README.md").read_text()
    assert "| fusion | 16 | 0.700 | [0.600, 0.800] | 0.700 |" in text
    assert "| sad | 8 | 0.800 |" in text
    assert "* Only 16 test rows: the intervals are wide." in text


def test_the_card_says_where_there_are_too_few_groups_for_intervals(trained: Trained, tmp_path: Path) -> None:
    path = trained.layout.details("evaluate")
    before = path.read_bytes()
    artifacts.write_json(path, without_intervals(artifacts.read_json(path)))
    bundle.export(trained.params, trained.layout, tmp_path / "bundle", ["posts"])
    path.write_bytes(before)
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "| fusion | 16 | 0.700 | too few groups | 0.700 |" in text
    assert "+0.400 (too few groups for an interval)" in text


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def name_outside(folder: Path, name: str) -> None:
    rewrite(folder / "bundle.json", lambda content: content["files"].update({name: "0" * 64}))


def link_outside(folder: Path) -> None:
    shutil.move(folder / "predictor.json", folder.parent / "predictor.json")
    (folder / "predictor.json").symlink_to(folder.parent / "predictor.json")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "format": (lambda folder: rewrite(folder / "bundle.json", lambda c: c.update(format=1)), "format 1, this version"),
    "no format": (lambda folder: rewrite(folder / "bundle.json", lambda c: c.pop("format")), "format None, this"),
    "no list": (
        lambda folder: rewrite(folder / "bundle.json", lambda c: c.update(files=[])),
        "bundle.json: files: Input should be an object",
    ),
    "no index": (lambda folder: (folder / "bundle.json").unlink(), "no bundle: it has no bundle.json"),
    "no JSON": (lambda folder: (folder / "bundle.json").write_text("{"), "bundle.json: not JSON"),
    "missing": (
        lambda folder: (folder / "text" / "model.safetensors").unlink(),
        "text/model.safetensors: file not found",
    ),
    "changed": (lambda folder: (folder / "fuse" / "model.json").write_text("{}"), "fuse/model.json: was changed"),
    "extra": (lambda folder: (folder / "encoders" / "text" / "x.json").write_text("{}"), "x.json: not a file of this"),
    "dots": (lambda folder: name_outside(folder, "../x"), "'../x', which leads out"),
    "root": (lambda folder: name_outside(folder, "/etc/hostname"), "'/etc/hostname', which leads out"),
    "zero": (lambda folder: name_outside(folder, "a\0b"), "which leads out"),
    "link": (link_outside, "'predictor.json', which leads out"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_as_it_was_made_is_refused_in_one_line(own: Path, damage: str) -> None:
    harm, message = DAMAGE[damage]
    harm(own)
    with pytest.raises(InputError) as error:
        Predictor.load(own)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_export_replaces_a_bundle_and_nothing_else(trained: Trained, own: Path, tmp_path: Path) -> None:
    before = (own / "bundle.json").read_bytes()
    bundle.export(trained.params, trained.layout, own)
    assert (own / "bundle.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for foreign in (tmp_path / "mine", tmp_path / "file"):
        with pytest.raises(InputError, match="exists and is no bundle"):
            bundle.export(trained.params, trained.layout, foreign)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize("name", ["notes.txt", "text/mine.bin", ".hidden", "kept/", "link"])
def test_export_deletes_nothing_that_a_user_put_beside_a_bundle(trained: Trained, own: Path, name: str) -> None:
    path = own / name
    if name == "link":
        path.symlink_to("/etc/hostname")
    elif name.endswith("/"):
        path.mkdir()
    else:
        path.write_text("years of work")
    before = sorted(own.rglob("*"))
    with pytest.raises(InputError, match="no file of the bundle, and would be lost; move it elsewhere"):
        bundle.export(trained.params, trained.layout, own)
    assert sorted(own.rglob("*")) == before


def test_pickled_weights_travel_as_safetensors(tmp_path: Path) -> None:
    folder = tiny.distilbert(tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    weights.write_encoder(weights.local(folder, "here"), tmp_path / "written")
    assert not list((tmp_path / "written").glob("*.bin"))
    written = load_file(tmp_path / "written" / "model.safetensors")
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], value) for name, value in tensors.items())


def test_the_packaged_picture_encoder_travels_as_safetensors(tmp_path: Path) -> None:
    packaged = weights.resolve("embed.image", image.PACKAGED_ENCODER, None, image.PACKAGED_ENCODER)
    bundle.write_encoder(packaged, tmp_path / "encoder")
    pixels = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    here = image.efficientnet(packaged).encode(pixels, pick("cpu"))
    there = bundle.load_pictures(tmp_path / "encoder").encode(pixels, pick("cpu"))
    np.testing.assert_allclose(there, here, atol=1e-6)


def fused(kind: str, widths: dict[str, int], classes: int) -> FusedNet:
    if kind == "linear":
        return LinearFusion(widths, classes, vectors=True, experts=True)
    if kind == "first_present":
        return FirstPresent(widths, classes, order=("video", "text", "image"))
    if kind == "averaged":
        return AveragedFusion(widths, [fused("linear", widths, classes), fused("gated", widths, classes)])
    return Fusion(widths, classes, strategy=kind, width=16, hidden=16)


def run_onnx(path: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    (logits,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    return np.asarray(logits)


def test_the_specialists_as_onnx_compute_the_same(predictor: Predictor, tmp_path: Path) -> None:
    onnx.write(replace(predictor.model, fusion=None), tmp_path / "onnx")
    generator = np.random.default_rng(0)
    for name, branch in predictor.model.branches.items():
        for rows in (1, 2, 9):
            vectors = generator.normal(size=(rows, branch.encoder.width)).astype(np.float32)
            with torch.inference_mode():
                logits = branch.classifier(torch.from_numpy(vectors)).numpy()
            made = run_onnx(tmp_path / "onnx" / f"{name}.onnx", {"vector": vectors})
            np.testing.assert_allclose(made, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["attention", "gated", "concat", "linear", "first_present", "averaged"])
def test_each_fusion_as_onnx_computes_the_same(predictor: Predictor, tmp_path: Path, kind: str) -> None:
    trained = predictor.model
    torch.manual_seed(0)
    widths = {name: branch.frozen.width for name, branch in trained.branches.items()}
    fusion = fused(kind, widths, len(trained.labels))
    for weight in fusion.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    fusion.eval()
    onnx.write(replace(trained, branches={}, fusion=fusion), tmp_path / "onnx")
    generator = np.random.default_rng(0)
    for rows in (1, 2, 9):
        vectors = {name: generator.normal(size=(rows, width)).astype(np.float32) for name, width in widths.items()}
        expert_log_probs = {name: generator.normal(size=(rows, 2)).astype(np.float32) for name in widths}
        present = {name: generator.random(rows) < 0.6 for name in widths}
        given = {"vector": vectors, "expert_log_prob": expert_log_probs, "present": present}
        flat = {f"{what}_{name}": value for what, of in given.items() for name, value in of.items()}
        with torch.inference_mode():
            expected = fusion(*({name: torch.from_numpy(value) for name, value in of.items()} for of in given.values()))
        np.testing.assert_allclose(run_onnx(tmp_path / "onnx" / "fuse.onnx", flat), expected.numpy(), atol=1e-5)


def test_onnx_without_its_packages_says_what_to_install(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r'pip install "emocare-pipeline\[onnx\]"'):
        bundle.export(trained.params, trained.layout, tmp_path / "bundle", onnx=True)
    assert list(tmp_path.iterdir()) == []
