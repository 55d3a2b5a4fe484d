"""What ``python -m pipeline errors`` does: lists mistakes of the fusion, or labels that look wrong, and draws them.

Reads:  plots/evaluate/errors.csv, models/fuse/model.json, data/split/posts.parquet and of the media what is shown; for
        suspects instead of the errors models/train_*/.
"""

import webbrowser
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import off
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.terminal import printable
from pipeline.params import Params
from pipeline.posts import suspects
from pipeline.posts.descriptions import FusionDescription
from pipeline.reporting import gallery, page
from pipeline.reporting.gallery import Card

TEXT_LETTERS = 60


@dataclass(frozen=True)
class Listing:
    """Cards with the words around them; ``total`` is how many posts matched, of which the cards are the first."""

    title: str
    lead: str
    other: str
    strength: str
    reasons: str
    total: int
    cards: list[Card]


def mistakes(params: Params, layout: Layout, label: str | None, predicted: str | None, limit: int) -> Listing:
    """Misclassified test posts, the most confident first. Raises InputError for a label that the model lacks."""
    _known(layout, label, predicted)
    matching = _matching(gallery.read_errors(layout), "prediction", label, predicted)
    title = f"Test posts{_labelled(label)} taken for {predicted or 'another class'}"
    lead = "A pull is the change in log-odds of the predicted class that a modality brings: above 0 it spoke for it."
    cards = gallery.of_errors(matching.head(limit), params, layout)
    return Listing(title, lead, "taken for", "confidence", "pulls", len(matching), cards)


def label_suspects(params: Params, layout: Layout, label: str | None, predicted: str | None, limit: int) -> Listing:
    """Training posts whose label is likely a mistake. Raises InputError for a label that the model lacks."""
    labels = _known(layout, label, predicted)
    matching = _matching(suspects.likely_mistakes(layout, labels), "suggestion", label, predicted)
    title = f"Training posts{_labelled(label)} that look like {predicted or 'another class'}"
    lead = (
        "Every specialist of the post, asked out of fold, finds its label less likely than that label usually is, and "
        "another class as likely as that one usually is. Evidence is the sum, over specialists, of "
        "the logarithm of how much likelier they find that class than the label. Look at the post before you change "
        "anything."
    )
    rows = matching.head(limit).rename(columns={"suggestion": "other", "evidence": "strength"}).to_dict("records")
    cards = gallery.cards([{str(key): value for key, value in row.items()} for row in rows], params, layout)
    return Listing(title, lead, "looks like", "evidence", "of each specialist", len(matching), cards)


def _known(layout: Layout, *chosen: str | None) -> tuple[str, ...]:
    off.refuse_off("posts", layout)
    labels = read_description(layout.model("fuse"), FusionDescription).labels
    for option, label in zip(("--label", "--predicted"), chosen, strict=True):
        if label is not None and label not in labels:
            raise InputError(f"{option}: {label!r} is no label of this run, which knows {', '.join(labels)}")
    return labels


def _matching(rows: pd.DataFrame, other: str, label: str | None, predicted: str | None) -> pd.DataFrame:
    selected = pd.Series(True, rows.index)
    for column, value in (("label", label), (other, predicted)):
        selected &= rows[column] == value if value is not None else True
    return rows[selected]


def _labelled(label: str | None) -> str:
    return "" if label is None else f" labelled {label}"


def show(console: Console, listing: Listing) -> None:
    """Prints a listing as a table."""
    console.print(Text(f"{printable(listing.title)}: {_count(listing)}"))
    if not listing.cards:
        return
    table = Table("id", "label", listing.other, listing.strength, box=None, pad_edge=False)
    table.add_column(listing.reasons, no_wrap=True)
    table.add_column("text", min_width=TEXT_LETTERS // 2)
    for card in listing.cards:
        text = Text(printable(card.text)[:TEXT_LETTERS])
        for flag in card.flags:
            text.append(f"\n{printable(flag)}", "yellow")
        words = (card.id, card.label, card.other)
        reasons = Text("\n".join(card.reasons))
        table.add_row(*(Text(printable(word)) for word in words), f"{card.strength:.2f}", reasons, text)
    console.print(table)


def _count(listing: Listing) -> str:
    shown = len(listing.cards)
    return str(shown) if shown == listing.total else f"{shown} of {listing.total}"


def write(out: Path, listing: Listing) -> None:
    """Writes a listing as a page with thumbnails."""
    page.write(out, "errors.html", listing=listing, count=_count(listing))


def open_in_browser(out: Path) -> None:
    if not webbrowser.open(out.absolute().as_uri()):
        raise InputError(f"{out}: written, and no browser could be started; open it by hand")
