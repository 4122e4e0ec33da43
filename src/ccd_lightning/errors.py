"""Exceptions for user errors and termination."""


class UserError(Exception):
    """An error in a path, a config key, an image, a mask or a checkpoint.

    The message gives the cause and the fix in one or two sentences. The command line prints it without a traceback and
    exits with code 2.
    """


class Terminated(BaseException):
    """Raised when SIGTERM asks the process to stop; the message says how to resume."""
