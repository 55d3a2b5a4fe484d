"""What the commands that report print to: cells hold labels, names and values that others wrote."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.core.terminal import obeying_nothing


class Screen(Console):
    """Escapes what a terminal would obey in every plain text; takes nothing as markup.

    Args:
        piped_width: columns where the output is no terminal.
    """

    def __init__(self, piped_width: int) -> None:
        super().__init__(width=None if sys.stdout.isatty() else piped_width, markup=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(obeying_nothing(text), **options)
