"""The kinds of a MediaError that say what a file lacks, and the words behind them that others read."""

NO_SOUND = "no sound"
"""The kind of a MediaError where nothing is to be heard, which is no fault of the file."""


NO_WORDS = "no words"
"""The kind of a MediaError where nobody is heard to speak, or nothing is written."""


NO_FACE = "no face"
"""The kind of a MediaError where no face is to be seen, which is no fault of the file either."""


NO_PICTURES = "no video stream"
"""The kind of a MediaError where a clip is heard and not seen."""


UNKNOWN_CODEC, UNDECODED = "unknown codec", "its audio track cannot be decoded"
"""What lies behind the colon where another release of FFmpeg may know better."""
