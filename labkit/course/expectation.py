"""An error that is meant: shown in one line when it comes, a failure when it does not."""

from __future__ import annotations

import errno as errno_names
from types import TracebackType

from labkit.course.presenting import say
from labkit.errors import CheckFailed


class expect:  # noqa: N801 - read as a verb: `with expect("EBUSY"):`
    """Expect the block to fail with an error, print it in one line, and go on.

    Args:
        what: the errno's name ("EBUSY"), the error's class ("UnsupportedError"), or words of its message.

    Raises:
        CheckFailed: the block did not fail, or failed with another error.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.error: BaseException | None = None

    def __enter__(self) -> expect:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if error is None:
            raise CheckFailed(self.what, "no error")
        if not isinstance(error, Exception):
            return False  # an interruption is nobody's expectation
        if not matches(error, self.what):
            raise CheckFailed(self.what, f"{type(error).__name__}: {error}") from error
        self.error = error
        say(f"as expected: {error}\n")
        return True


def matches(error: BaseException, what: str) -> bool:
    """Tell whether an error is the one named by its errno, its class or words of its message."""
    name = errno_names.errorcode.get(getattr(error, "errno", None) or 0, "")
    classes = {one.__name__ for one in type(error).__mro__}
    return what == name or what in classes or what in str(error)
