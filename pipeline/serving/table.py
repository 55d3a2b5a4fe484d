"""One prediction as a table for a terminal."""

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.core.terminal import printable
from pipeline.serving.posts import Explanation, Prediction

BAR = 24
"""Characters of a bar that stands for certainty."""

WORDS = 8
"""Words shown: those that changed most."""


def show(console: Console, prediction: Prediction, explanation: Explanation | None) -> None:
    parts = [_probabilities(prediction), Text(), _modalities(prediction)]
    unread = [name for name, part in prediction.parts.items() if part.alone is not None and part.change == 0]
    if unread:
        parts.append(Text(f"{' and '.join(unread)}: not read beside the others by the fusion that was chosen"))
    if prediction.labels_in_set is not None:
        parts += [Text(), Text(f"cannot be ruled out: {printable(', '.join(prediction.labels_in_set))}")]
    if explanation is not None:
        parts += _explanation(explanation)
    console.print(Group(*parts))


def _probabilities(prediction: Prediction) -> Table:
    table = Table("label", "", "", box=None, pad_edge=False, show_header=False)
    for label, value in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        style = "bold" if label == prediction.label else ""
        table.add_row(Text(printable(label)), f"{value:.3f}", "█" * round(BAR * value), style=style)
    return table


def _modalities(prediction: Prediction) -> Table:
    table = Table("modality", "state", "share", "change in log-odds", "alone it says", box=None, pad_edge=False)
    for name, part in prediction.parts.items():
        if part.alone is None:
            state = part.state if part.reason is None else f"{part.state}: {part.reason}"
            table.add_row(name, Text(printable(state)), "", "", "", style="dim" if part.state == "absent" else "yellow")
            continue
        label = max(part.alone, key=part.alone.__getitem__)
        alone = Text(f"{printable(label)} {part.alone[label]:.2f}")
        table.add_row(name, part.state, f"{part.share:.0%}", f"{part.change:+.2f}", alone)
    return table


def _explanation(explanation: Explanation) -> list[Table | Text]:
    parts: list[Table | Text] = [
        Text(),
        Text(f"change in the log-odds of {printable(explanation.label)} without a piece"),
    ]
    if explanation.words is not None:
        most = sorted(explanation.words, key=lambda item: -abs(item[2]))[:WORDS]
        table = Table("word", "change", box=None, pad_edge=False)
        for word, _, change in most:
            table.add_row(Text(printable(word)), f"{change:+.2f}")
        parts.append(table)
    if explanation.patches is not None:
        table = Table("picture, patch by patch", box=None, pad_edge=False)
        for row in explanation.patches:
            table.add_row(" ".join(f"{change:+6.2f}" for change in row))
        parts.append(table)
    if explanation.frames is not None:
        parts.append(Text("frames  " + " ".join(f"{change:+.2f}" for change in explanation.frames)))
    return parts
