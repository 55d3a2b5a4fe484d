from pathlib import Path

import pytest

from pipeline import params
from pipeline.core.errors import InputError
from tests.imports import ROOT


def load_text(tmp_path: Path, text: str) -> params.Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return params.load(path)


def test_the_file_spells_out_every_default() -> None:
    from ruamel.yaml import YAML

    written = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    assert params.load(ROOT / "params.yaml") == params.Params()

    def keys(block: dict, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for name, value in block.items():
            found |= keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
        return found

    assert keys(written) == {key for key, _, _ in params.knobs()}


def test_a_specialist_has_what_all_share_but_for_its_differences(tmp_path: Path) -> None:
    text = "specialist: {hidden: 9, head: {epochs: 3}, tuned: {epochs: 7, augment: false}}\n"
    made = load_text(tmp_path, text + "train_image: {hidden: 5, head: {batch: 4}}\ntrain_video: {tuned: {epochs: 8}}")
    blocks = [made.of_specialist(name) for name in ("text", "image", "video")]
    assert [block.hidden for block in blocks] == [9, 5, 9]
    assert [(block.head.epochs, block.head.batch) for block in blocks] == [(3, 32), (3, 4), (3, 32)]
    # By default a text encoder is tuned in fewer epochs and from fewer rows on, and clips in smaller batches.
    assert [(block.tuned.epochs, block.tuned.batch) for block in blocks] == [(2, 32), (7, 32), (8, 16)]
    assert [made.train_image.tuned.augment, made.train_video.tuned.augment] == [False, False]


def test_only_differences_of_a_specialist_are_listed(tmp_path: Path) -> None:
    def listed(made: params.Params) -> list[str]:
        blocks = ("train_text", "train_image", "train_video")
        return [key for key, _, _ in params.knobs(made) if key.partition(".")[0] in blocks]

    assert listed(params.Params()) == ["train_text.tuned_rows", "train_text.tuned.epochs", "train_video.tuned.batch"]
    made = load_text(tmp_path, "specialist: {dropout: 0.2}\ntrain_image: {hidden: 5, dropout: 0.2}")
    assert listed(made) == [
        "train_text.tuned_rows",
        "train_text.tuned.epochs",
        "train_image.hidden",
        "train_video.tuned.batch",
    ]


def test_a_fault_in_the_shared_block_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_text(tmp_path, "specialist: {hidden: -1, tuned: {folds: 1}}\ntrain_image: {folds: 1}")
    lines = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert lines == ["specialist.hidden", "specialist.tuned.folds", "train_image.folds"]


def test_every_knob_says_what_it_does() -> None:
    silent = [key for key, field, _ in params.knobs() if not (field.description or "").endswith(".")]
    assert silent == []


def test_yaml_12_floats_are_numbers(tmp_path: Path) -> None:
    assert load_text(tmp_path, "fuse: {learning_rate: 1e-3}").fuse.learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "sed: unknown key; the top level knows tracks, seed, device"),
        ("fuse: {strateg: x}", "fuse.strateg: unknown key; fuse knows"),
        (
            "fuse: {modality_dropout: 1.5}",
            "fuse.modality_dropout: 1.5 is not allowed; give a number, at least 0.0, below 1.0",
        ),
        ("fuse: {strategy: sum}", "fuse.strategy: 'sum' is not allowed; give attention | gated | concat"),
        (
            "train_source: {candidates: []}",
            "train_source.candidates: [] is not allowed; give a list of one or more of ridge, net",
        ),
        ("tracks: posts", "tracks: 'posts' is not allowed; give a list of any of posts, sentiment"),
        ("posts: {labels: Joy}", "posts.labels: 'Joy' is not allowed; give a list of texts"),
        ("7: x", "7: is a key that is no text; the keys of params.yaml are names"),
        (
            "train_image: {candidates: [head, head]}",
            "train_image.candidates: head stands there twice; name each once",
        ),
        (
            "fuse: {candidates: [trained, averaged]}",
            "fuse.candidates: averaged needs two or more of stacked_logreg, vectors_logreg, joint_logreg, trained "
            "beside it",
        ),
        ("fuse: {candidates: [trained, trained]}", "fuse.candidates: trained stands there twice; name each once"),
        (
            "posts: {manifest: s3://bucket/mine/posts.parquet}",
            "posts.manifest: s3://bucket/mine/posts.parquet is an address, and stages read files; run `python -m "
            "pipeline fetch s3://bucket/mine/posts.parquet data/posts`, then set posts.manifest to "
            "data/posts/posts.parquet, and posts.media to data/posts",
        ),
        (
            "target: {corpus: https://server/mosi.pkl}",
            "target.corpus: https://server/mosi.pkl is an address, and stages read files; run `python -m pipeline "
            "fetch https://server/mosi.pkl data/target`, then set target.corpus to data/target/mosi.pkl",
        ),
        ("posts: {media: gs://bucket}", "posts.media: gs://bucket is an address; give the folder of a `fetch`"),
        ("seed: abc", "seed: 'abc' is not allowed; give a whole number, at least 0"),
        ("seed: 1.5", "seed: 1.5 is not allowed"),
        (
            "adapter: {visual: {hidden: wide}}",
            "adapter.visual.hidden: 'wide' is not allowed; give a list of whole numbers or null",
        ),
        ("adapter: {components: few}", "adapter.components: 'few' is not allowed; give a whole number or null"),
        ("embed: {text: {max_tokens: '9'}}", "embed.text.max_tokens: '9' is not allowed"),
        ("train_text: 3", "train_text: 3 is not allowed; give a block of keys: "),
        ("posts: {labels: [1]}", "posts.labels.0: 1 is not allowed"),
        ("fuse: {width: 30}", "fuse.heads: 4 does not divide fuse.width, 30"),
        ("split: {val_share: 0.45, test_share: 0.45}", "leave less than 0.2"),
        (
            "finetune_e2e: {curve: [20, 3]}",
            "finetune_e2e.curve.1: 3 is not allowed; give what is greater than",
        ),
        ("finetune_e2e: {tuned: {patience: 2}}", "finetune_e2e.tuned.patience: unknown key"),
        ("train_source: {tuned: {folds: 2}}", "train_source.tuned.folds: unknown key; train_source.tuned knows"),
        ("train_text: {tuned: {augment: true}}", "train_text.tuned.augment: unknown key; train_text.tuned knows"),
        ("tracks: [post]", "tracks.0: 'post' is not allowed; give what is 'posts' or 'sentiment'"),
        ("tracks: []", "tracks: is empty; give posts or sentiment, or both"),
        ("a: [1", "not valid YAML"),
        ("seed: 1\nseed: 2", "not valid YAML"),
        ("- 1", "is not allowed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_text(tmp_path, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "params.yaml"))
    assert "\n" not in str(caught.value)


def test_each_wrong_key_gets_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_text(tmp_path, "seed: x\ndevice: gpu")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["seed", "device"]


def test_a_missing_file_says_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not found; run from the project's folder"):
        params.load(tmp_path / "params.yaml")
