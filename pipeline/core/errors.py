"""The one exception that reaches a user as a single line."""


class InputError(Exception):
    """Something the user gave is wrong: says which file, which row, what is wrong and what to do.

    The command line prints it as one line and exits with status 1; a traceback always means a bug of ours.
    """


class DamagedError(InputError):
    """A file of ours is not as we wrote it: ``problem``, and what to do where it lies in a project.

    Who reads a bundle, which is made elsewhere, says something else to do.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
