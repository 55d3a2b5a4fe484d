"""Where and why the fusion errs: the table of errors, and what each modality had to do with them."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES, Modality, subset_name
from pipeline.figures.contact_sheet import Tile
from pipeline.media.clips import read_frames
from pipeline.media.pictures import read_picture
from pipeline.params import Params
from pipeline.posts.held_out import FusionLogits, HeldOut
from pipeline.scoring import emotion

TILE_PIXELS, TILE_FRAMES = 320, 4
POSTS_AT_ONCE = 65_536
"""So many are read together to find those that are shown."""


def modality_attributions(
    fusion: FusionLogits, modalities: list[Modality], present: dict[Modality, np.ndarray]
) -> dict[str, np.ndarray]:
    """How far each modality pulled each test row towards the class that the fusion predicts, float64 [n].

    It is the log-odds of that class less what they are with the modality masked: above 0, the modality spoke for the
    prediction. NaN where the row does not have the modality, or the corpus has no other.
    """
    whole = emotion.log_odds(fusion.whole, fusion.predicted)
    pulls = {}
    for name in modalities:
        others = subset_name([other for other in modalities if other != name])
        masked = emotion.log_odds(fusion.subsets["masked", others], fusion.predicted) if others else np.nan
        pulls[f"pull_{name}"] = np.where(present[name], whole - masked, np.nan)
    return pulls


def error_table(test: HeldOut, fusion: FusionLogits, pulls: dict[str, np.ndarray]) -> pd.DataFrame:
    """Every misclassified test row, the most confident first."""
    probabilities, predicted = emotion.softmax(fusion.whole), fusion.predicted
    names = np.array(test.labels, dtype=object)
    table = pd.DataFrame(
        {
            "id": test.posts["sample_id"],
            "label": test.posts["label"],
            "prediction": names[predicted],
            "confidence": probabilities[np.arange(len(predicted)), predicted],
            "probability_of_label": probabilities[np.arange(len(predicted)), test.codes],
            **pulls,
        }
    )
    wrong = table[predicted != test.codes]
    return wrong.sort_values(["confidence", "id"], ascending=[False, True], ignore_index=True)


def error_tiles(errors: pd.DataFrame, params: Params, layout: Layout) -> list[Tile]:
    """The first of the table of errors, with what the posts say and show."""
    shown = errors.head(params.evaluate.gallery)
    by_id = _posts(set(shown["id"]), layout)
    folder = layout.root / params.posts.media
    tiles = []
    for error in shown.to_dict("records"):
        post = by_id.loc[error["id"]]
        pulls = {name: error.get(f"pull_{name}", np.nan) for name in MODALITIES}
        caption = [str(error["id"]), f"{error['label']}, taken for {error['prediction']} ({error['confidence']:.2f})"]
        known = [f"{name} {pull:+.1f}" for name, pull in pulls.items() if np.isfinite(pull)]
        caption += [f"pull: {', '.join(known)}"] if known else []
        tiles.append(Tile(_pictures(post, folder, params.embed.max_pixels), post["text"] or "", "\n".join(caption)))
    return tiles


def _posts(ids: set[str], layout: Layout) -> pd.DataFrame:
    """Text and media of these posts, by their ids."""
    columns = ["sample_id", "text", "image_path", "video_path"]
    parts = artifacts.read_posts_in_parts(layout.table("posts"), columns, POSTS_AT_ONCE)
    return pd.concat([part[part["sample_id"].isin(ids)] for part in parts]).set_index("sample_id")


def _pictures(post: pd.Series, folder: Path, max_pixels: int) -> list[np.ndarray]:
    """The picture, or some frames of the clip; nothing where neither can be read, which `embed` has reported."""
    size = {"max_pixels": max_pixels, "at_least": TILE_PIXELS}
    try:
        if post["image_path"]:
            return [read_picture(folder / post["image_path"], **size)]
        if post["video_path"]:
            return read_frames(folder / post["video_path"], frames=TILE_FRAMES, **size)
    except MediaError:
        return []
    return []
