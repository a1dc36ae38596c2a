"""The keywords of photos, read and written by one exiftool process per API process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from zerotag.metadata.exiftool import open_exiftool
from zerotag.metadata.keywords import PhotoKeywords, read_photo_keywords
from zerotag.metadata.writing import decide

if TYPE_CHECKING:
    from exiftool import ExifTool

T = TypeVar("T")


class Keywords:
    """Reads and writes keywords, one photo at a time; exiftool starts with the first one."""

    def __init__(self) -> None:
        # A thread of its own: exiftool ends with the thread that starts it, and those of the web server come and go.
        self._thread = ThreadPoolExecutor(1, "exiftool")
        self._opened = ExitStack()
        self._tool: ExifTool | None = None

    def read(self, photo: Path) -> PhotoKeywords:
        """The keywords of a photo and its sidecars.

        Raises:
            ExiftoolError: exiftool is not installed, or stopped.
        """
        return self._run(lambda tool: read_photo_keywords(tool, [photo])[photo])

    def decide(self, photo: Path, accept: list[str], reject: list[str], forget: list[str]) -> PhotoKeywords:
        """Write what a person says of tags, and read the keywords again.

        Raises:
            ZerotagError: as for `zerotag.metadata.writing.decide`, and for `read`.
        """

        def write(tool: "ExifTool") -> PhotoKeywords:
            decide(tool, photo, accept, reject, forget)
            return read_photo_keywords(tool, [photo])[photo]

        return self._run(write)

    def close(self) -> None:
        """Stop exiftool."""
        self._thread.submit(self._opened.close).result()
        self._thread.shutdown()

    def _run(self, use: Callable[["ExifTool"], T]) -> T:
        def run() -> T:
            if self._tool is None or not self._tool.running:
                self._opened.close()
                self._tool = self._opened.enter_context(open_exiftool())
            return use(self._tool)

        return self._thread.submit(run).result()
