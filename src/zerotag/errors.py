"""The error type for everything that a user can fix."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class ZerotagError(Exception):
    """Invalid input or settings.

    The message names the file, line or parameter and says how to fix it. Stages and the command line print it
    without a traceback and exit with status 1.
    """


@contextmanager
def plain_exit() -> Iterator[None]:
    """Print a ZerotagError to stderr and exit with status 1."""
    try:
        yield
    except ZerotagError as error:
        print(f"zerotag: {error}", file=sys.stderr)
        raise SystemExit(1) from None
