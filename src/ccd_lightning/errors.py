"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """A mistake in a path, a config key, an image, a mask or a checkpoint.

    The message is one or two sentences that name the culprit and the way out. The command line prints it without a
    traceback and exits with code 2.
    """


class Terminated(BaseException):
    """The process was asked to stop by SIGTERM; its text says how to go on."""
