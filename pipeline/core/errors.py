"""The one exception that reaches a user as a single line."""

from pipeline.core.terminal import printable


class InputError(Exception):
    """Something the user gave is wrong: says which file, which row, what is wrong and what to do.

    The command line prints it as one line and exits with status 1; a traceback always means a bug of ours.

    Args:
        lines: one, or one for each of several things that are wrong. What strangers wrote, such as the name of a
            column, makes no line of its own.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(printable, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


class DamagedError(InputError):
    """A file of ours is not as we wrote it: ``problem``, and what to do where it lies in a project.

    Who reads a bundle, which is made elsewhere, says something else to do.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy = problem, remedy

    def __reduce__(self) -> tuple[type["DamagedError"], tuple[str, str]]:
        """It comes whole from a worker process, too."""
        return type(self), (self.problem, self.remedy)
