"""The error type for everything that a user can fix."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from zerotag.extras import extra_of


class ZerotagError(Exception):
    """Invalid input or settings.

    The message names the file, line or parameter and says how to fix it. Stages and the command line print it
    without a traceback and exit with status 1.
    """


@contextmanager
def plain_exit() -> Iterator[None]:
    """Print a ZerotagError, or which extra is not installed, to stderr and exit with status 1."""
    try:
        with extras_named():
            yield
    except ZerotagError as error:
        print(f"zerotag: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@contextmanager
def extras_named(otherwise: str = "") -> Iterator[None]:
    """Turn a missing package of an extra into a ZerotagError that names the extra to install.

    Args:
        otherwise: what else the user can do, a sentence for the end of the message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        message = f"{error}. This needs the extra `{extra}`: pip install 'zerotag[{extra}]'"
        raise ZerotagError(f"{message}. {otherwise}" if otherwise else message) from error


def require(module: str, otherwise: str = "") -> None:
    """Check that a module is installed without importing it, for packages whose modules all import it.

    Args:
        module: a top-level module.
        otherwise: as in `extras_named`.

    Raises:
        ZerotagError: the module belongs to an extra that is not installed.
    """
    with extras_named(otherwise):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
