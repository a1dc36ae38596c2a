"""The one error that a user can mend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class ZerotagError(Exception):
    """Bad input or a bad setting.

    The message names the file, the line or the parameter, and says what to do about it.
    Stages and the command line print it without a traceback and exit with status 1.
    """


@contextmanager
def plain_exit() -> Iterator[None]:
    """Turn a ZerotagError into its message on stderr and exit status 1."""
    try:
        yield
    except ZerotagError as error:
        print(f"zerotag: {error}", file=sys.stderr)
        raise SystemExit(1) from None
