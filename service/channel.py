"""Messages between two processes, over a socket."""

import pickle
import socket
from contextlib import suppress
from typing import Any

# Messages up to so many bytes are handed over at once. Larger photos are not copied for it: `pickle` writes them to the
# file, and reads them from it, by themselves.
_BUFFER = 256 * 1024
# Bytes that may wait in the socket, if the system allows as many: beyond them, both ends take turns.
_WAITING = 4 << 20


class Channel:
    """One end of a connection between processes that trust each other.

    Args:
        connected: a stream socket, which the channel closes with itself.
    """

    def __init__(self, connected: socket.socket):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WAITING)
        self._socket = connected
        self._file = connected.makefile("rwb", buffering=_BUFFER)

    def send(self, message: Any) -> None:
        """Send an object.

        Raises:
            OSError: the other end is closed.
        """
        pickle.dump(message, self._file, pickle.HIGHEST_PROTOCOL)
        self._file.flush()

    def receive(self) -> Any:
        """Wait for an object.

        Raises:
            EOFError, OSError: the other end is closed.
        """
        try:
            return pickle.load(self._file)
        except pickle.UnpicklingError as error:  # in the middle of a message
            raise EOFError from error

    def close(self) -> None:
        """Close this end; who waits for a message on either one is told so."""
        with suppress(OSError):  # the other end is closed, too
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):  # something could not be sent
            self._file.close()
        self._socket.close()
