"""The one exception that reaches a user as a single line."""


class InputError(Exception):
    """Something the user gave is wrong: says which file, which row, what is wrong and what to do.

    The command line prints it as one line and exits with status 1; a traceback always means a bug of ours.
    """
