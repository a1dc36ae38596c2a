"""A process that loads a model, and forks those that work on photos: python -m service.worker FILE_DESCRIPTOR."""

import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from service.channel import Channel
from service.model import Model


def main() -> None:
    """Load the model that arrives, and fork a process for each connection that arrives after it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that end
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # the one that answers gives way to these
    with Connection(int(sys.argv[1])) as control, suppress(EOFError):
        model: Model = control.recv()
        try:
            model.load()
            gc.freeze()  # what is loaded stays: the collector need not look at it again, nor write to shared pages
        except Exception as error:
            control.send(error)
            return
        control.send(None)
        while True:
            handle = recv_handle(control)
            if os.fork() == 0:
                control.close()
                work(model, Channel(socket.socket(fileno=handle)))
                os._exit(0)
            os.close(handle)


def work(model: Model, channel: Channel) -> None:
    """Answer with what becomes of photos, until the other end is closed."""
    with suppress(EOFError, ConnectionError):
        while True:
            photos = channel.receive()
            try:
                channel.send(model(photos))
            except Exception as error:
                channel.send(error)


if __name__ == "__main__":
    main()
