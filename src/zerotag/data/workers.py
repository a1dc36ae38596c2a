"""How worker processes start."""

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext


def clean_fork(module: str) -> ForkServerContext:
    """A context whose processes are forked from a server that has only imported a module, not from this process.

    A fork of this process would wait forever for a lock that another of its threads held (pyarrow and BLAS have some).

    Args:
        module: where the functions are that the processes run; imported once, before the first fork.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([module])
    return context
