"""The model card: what was learned from what, how well, and what it must not be used for.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.params import Params
from pipeline.posts.model import Model
from pipeline.reporting.evaluated import read_evaluated
from pipeline.scoring import conformal
from pipeline.scoring.conformal import COVERAGE


def write(model: Model, params: Params, layout: Layout) -> str:
    """The card of a project's models, as Markdown. Raises InputError when the project was not evaluated."""
    split = artifacts.read_json(layout.details("split"))["posts"]
    scored = read_evaluated(layout)["posts"]
    sections = [
        "# Emotions of posts: a trained pipeline",
        f"Tells {_listed(model.labels)} from {_listed(model.branches)}; any of these may be absent from a post.",
        _use(),
        "## Data\n\n" + _data(split),
        "## Metrics\n\n" + _metrics(scored, params.evaluate.confidence, list(model.branches)),
        "## Prediction sets\n\n" + _sets(model, scored),
        "## How it was made\n\n" + _made(model, params),
        "## Limits\n\n" + _limits(scored, _personal(model)),
    ]
    return "\n\n".join(sections) + "\n"


def _use() -> str:
    return (
        "## Use\n\n"
        '```sh\npython -m pipeline predict --bundle . --text "what a day" --image picture.jpg\n```\n\n'
        "```python\nfrom pipeline.serving.posts import Post\nfrom pipeline.serving.predictor import Predictor\n\n"
        'Predictor.load(".").predict([Post(text="what a day")])\n```\n\n'
        "`bundle.json` holds the sha256 of every file; nothing is loaded that was changed."
    )


def _data(split: dict[str, Any]) -> str:
    rows = [
        [part, split[part]["rows"], _counts(split[part]["class"]), _counts(split[part]["modalities"])]
        for part in ("train", "val", "test")
    ]
    groups = split["groups"]
    return (
        _table(["part", "posts", "classes", "modalities"], rows)
        + f"\n\nThe split was {split['split']}. {groups['after_merging']} groups (authors, joined where they share a "
        "picture, clip or text), none of which lies in two parts. Models learned from `train` and `val`; they were "
        "chosen, and probabilities and prediction sets calibrated, on rows of these that were predicted out of fold. "
        "The metrics below are of `test`."
    )


def _metrics(scored: dict[str, Any], confidence: float, modalities: Sequence[str]) -> str:
    systems = {
        "fusion": scored["fusion"],
        **{f"{name} alone": scored[name] for name in modalities if scored[name]["n"]},
    }
    systems |= {f"baseline {name}": scores for name, scores in scored["baselines"].items()}
    rows = [
        [
            name,
            system.get("n", scored["n"]),
            f"{system['macro_f1']:.3f}",
            _interval(system, "macro_f1_"),
            f"{system['accuracy']:.3f}",
        ]
        for name, system in systems.items()
    ]
    interval = f"{confidence:.0%} interval"
    fusion, gain = scored["fusion"], scored["fusion_minus_best_baseline"]
    around = _interval(gain, "") if "ci_low" in gain else "(too few groups for an interval)"
    by_label = [[label, fusion["support"][label], f"{value:.3f}"] for label, value in fusion["f1"].items()]
    return (
        _table(["system", "test posts", "macro-F1", interval, "accuracy"], rows)
        + f"\n\nFusion less the best baseline ({gain['baseline']}): {gain['value']:+.3f} {around}. "
        "Intervals come from a bootstrap over whole groups. Expected calibration error of the fusion: "
        f"{fusion['ece']:.3f}.\n\n" + _table(["label", "test posts", "F1"], by_label)
    )


def _sets(model: Model, scored: dict[str, Any]) -> str:
    """What a set promises, on which rows that rests, and for which labels there were too few."""
    needed = conformal.rows_needed(COVERAGE)
    few = [label for label, rows in zip(model.labels, model.nonconformity, strict=True) if len(rows) < needed]
    text = (
        "Class-wise conformal prediction. The calibration rows were predicted out of fold, and the probabilities were "
        "calibrated on them too, so the promised coverage holds only nearly."
    )
    if few:
        text += (
            f" At a coverage of {COVERAGE:.0%} a label needs {needed} calibration rows to be ruled out: "
            f"{_listed(few)} had fewer, and so {'is' if len(few) == 1 else 'are'} in every set."
        )
    if "conformal" in scored:
        measured = scored["conformal"]
        text += (
            f" On the test posts, sets for {measured['target']:.0%} held the true label in "
            f"{measured['coverage']:.1%} of cases, of {measured['mean_size']:.2f} labels on average."
        )
    return text


def _made(model: Model, params: Params) -> str:
    rows = []
    for name, branch in model.branches.items():
        encoder = branch.description.encoder or {}
        for stream, identity in encoder.get("streams", {"": encoder}).items():
            cells = [f"{name} {stream}".strip(), identity["name"], identity.get("revision", "computed, no weights")]
            digest = f"`{identity['sha256'][:16]}…`" if "sha256" in identity else ""
            rows.append([*cells, digest, f"`{branch.description.candidate}`"])
    how = f"`{model.description.candidate}`" if model.fusion is not None else "none: there is one modality"
    return (
        _table(["modality", "encoder", "revision", "sha256 of its weights", "specialist"], rows)
        + f"\n\nFusion: {how}, from the encoders' frozen vectors and the specialists' out-of-fold log-probabilities. "
        f"Seed {params.seed}. Made by the DVC pipeline of this package with "
        "`dvc repro` and `python -m pipeline export`; `model.json` in each folder says the rest."
    )


NAMES = {"image": "picture", "video": "clip"}


def _personal(model: Model) -> list[str]:
    """What is computed of people who are seen or heard in a clip or picture."""
    read = {name: set((branch.description.encoder or {}).get("streams", {})) for name, branch in model.branches.items()}
    streams = set[str]().union(*read.values())
    where = " or ".join(NAMES[name] for name, its in sorted(read.items(), reverse=True) if its)
    meaning = {
        "faces": "what the largest face of each picture or frame does (mouth, brows, eyes, head, expression)",
        "sound": "how the sound is (pitch, loudness, spectrum)",
        "speech": "what and how is spoken, as a speech recogniser's encoder hears it",
        "transcript": "what is said, by the words that a speech recogniser hears",
        "words": "what is written there, by the words that are read",
    }
    computed = [text for name, text in meaning.items() if name in streams]
    if not computed:
        return []
    return [
        f"Of a {where} it computes {_listed(computed)}, as numbers. Nobody is identified by them, yet they are "
        "personal: ask the people for consent, and see what the law of the place says of reading emotions."
    ]


def _limits(scored: dict[str, Any], personal: Sequence[str]) -> str:
    known = [f"{warning}." for warning in scored.get("warnings", [])]
    return "\n".join(
        f"* {line[0].upper()}{line[1:]}"
        for line in [
            *known,
            "The metrics are about posts like those of the test part; on others expect less.",
            "It learned what the labels say. Labels of emotion are noisy, and depend on who gave them.",
            "The encoders were trained on public text and pictures, and have their biases.",
            "A post of which nothing can be read gets about the prior; its parts say that nothing was read.",
            *personal,
            "Do not judge people by this.",
        ]
    )


def _interval(scores: dict[str, Any], prefix: str) -> str:
    if f"{prefix}ci_low" not in scores:
        return "too few groups"
    return f"[{scores[f'{prefix}ci_low']:.3f}, {scores[f'{prefix}ci_high']:.3f}]"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
