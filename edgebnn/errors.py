"""The one exception that a user's mistake raises; the command line prints it as a single line."""


class EdgebnnError(Exception):
    """What went wrong and how to fix it, in one line, with the offending name or path in it."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Interrupted(EdgebnnError):
    """Ctrl-C, where something is worth saying of what is kept; the status is 130."""


class TooLarge(EdgebnnError):
    """A network that a target has no room for; on another target it may be fine."""


class NoTwin(EdgebnnError):
    """A network that the bench has no twin of in int8."""
