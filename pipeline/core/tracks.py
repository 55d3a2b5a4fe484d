"""The two tracks; in a module that imports nothing, since the table of commands reads it."""

from typing import Literal, get_args

Track = Literal["posts", "sentiment"]
TRACKS: tuple[Track, ...] = get_args(Track)
