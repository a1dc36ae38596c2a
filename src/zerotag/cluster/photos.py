"""List photographs and read them: of a folder, below a prefix of an object store, or of a table of URLs.

Object stores are those of pyarrow's file systems, such as s3:// and gs://, with credentials and endpoint from the
environment of each node (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …).
"""

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from zerotag.data.scan import find, scan, scan_names
from zerotag.errors import ZerotagError
from zerotag.files import shown
from zerotag.serving.update import Photo, stamp_of
from zerotag.stores import s3_remedy

_TABLES = (".csv", ".parquet")
_WEB = ("http", "https")
_COLUMN = "url"
# The most that a photo may have, in bytes, and what a web server may take, in seconds.
_MOST = 512 * 2**20
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
# Of a request that breaks off or is answered so; waits 0.5, 1 and 2 seconds.
_RETRY = urllib3.Retry(3, backoff_factor=0.5, status_forcelist=[429, 500, 502, 503, 504], raise_on_status=False)


@dataclass
class Listing:
    """Photos.

    Attributes:
        photos: in a stable order; names are what results call them.
        skipped: as in `zerotag.data.scan.Scan`, like `problems`.
        removable: whether the listing says all that is there, so that what is not listed is gone.
    """

    photos: list[Photo] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    removable: bool = False


def is_remote(place: str) -> bool:
    """Whether photos have to be read through a cluster: a URL, or a table of them."""
    return "://" in place or is_table(place)


def is_table(place: str) -> bool:
    """Whether this is a table of URLs."""
    return place.lower().endswith(_TABLES)


def list_photos(places: Sequence[str], exclude: Sequence[str] = ()) -> Listing:
    """List photos.

    Args:
        places: folders and photos on a disk that all nodes see; prefixes of an object store; tables with a column `url`
            (CSV or Parquet).
        exclude: patterns of files and folders to pass over, on a disk or in an object store.

    Raises:
        ZerotagError: a place does not exist or cannot be read.
    """
    whole = Listing()
    for place in places:
        if is_table(place):
            part = _of_table(place)
        elif "://" in place:
            part = of_prefix(place, exclude)
        else:
            part = _of_disk(Path(place), exclude)
        whole.photos += part.photos
        whole.problems += part.problems
        for kind, count in part.skipped.items():
            whole.skipped[kind] = whole.skipped.get(kind, 0) + count
    return whole


def _of_disk(place: Path, exclude: Sequence[str]) -> Listing:
    found = scan([place], exclude)
    listing = Listing(skipped=dict(found.skipped), problems=found.problems)
    for file in found.photos:
        try:
            status = file.stat()
        except OSError as error:
            listing.problems.append(f"{shown(file)}: cannot be read ({error.strerror}).")
            continue
        modified = datetime.fromtimestamp(int(status.st_mtime))
        listing.photos.append(Photo(shown(file), str(file.absolute()), stamp_of(status), modified))
    return listing


def of_prefix(place: str, exclude: Sequence[str]) -> Listing:
    """Photos below a prefix of an object store; they are called by their URL.

    Raises:
        ZerotagError: it cannot be listed.
    """
    from pyarrow.fs import FileSelector, FileType

    if urlsplit(place).scheme in _WEB:
        raise ZerotagError(f"{place}: a web server has no listing. Give a table with a column `{_COLUMN}`.")
    try:
        files, path = file_system(place)
        path = path.rstrip("/")
        entries = files.get_file_info(FileSelector(path, recursive=True))
    except (OSError, ValueError) as error:
        raise ZerotagError(f"{place}: cannot be listed ({error}). {_remedy(place, error)}") from error
    there = {entry.path[len(path) + 1 :]: entry for entry in entries if entry.type == FileType.File}
    found = scan_names(there, exclude)
    start = place.rstrip("/")
    photos = []
    for each in found.photos:
        entry = there[str(each)]
        url = f"{start}/{each}"
        modified = datetime.fromtimestamp(int(entry.mtime.timestamp())) if entry.mtime else None
        photos.append(Photo(url, url, f"{entry.size}-{entry.mtime_ns or 0}", modified))
    return Listing(photos, dict(found.skipped), found.problems, removable=True)


def _remedy(place: str, error: Exception) -> str:
    if "://" not in place:
        return "Check the path."
    return (place.startswith("s3://") and s3_remedy(str(error))) or "Check the address and the credentials."


def _of_table(place: str) -> Listing:
    """Photos of a table of URLs; paths without a scheme are relative to the table's folder. Each is listed once."""
    photos = []
    for url in dict.fromkeys(_urls(place)):
        if "://" in url:
            # Nothing is known of it before it is read.
            photos.append(Photo(url, url, "url", None))
            continue
        file = Path(url) if "://" in place else Path(place).parent / url
        modified = None
        stamp = ""
        if (there := find(file)) is not None:
            file, status = there, there.stat()
            stamp, modified = stamp_of(status), datetime.fromtimestamp(int(status.st_mtime))
        photos.append(Photo(shown(file), str(file.absolute()), stamp, modified))
    return Listing(photos)


def _urls(place: str) -> Iterable[str]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        files, path = file_system(place)
        with files.open_input_file(path) as file:
            if place.lower().endswith(".csv"):
                # As text: a column of numbers is no error here.
                options = csv.ConvertOptions(column_types={_COLUMN: pa.string()}, strings_can_be_null=True)
                table = csv.read_csv(file, convert_options=options)
            else:
                table = parquet.read_table(file)
    except OSError as error:
        raise ZerotagError(f"{place}: the table of photos cannot be read ({error}). {_remedy(place, error)}") from error
    except ValueError as error:
        raise ZerotagError(f"{place}: no table ({error}). Give CSV or Parquet with a column `{_COLUMN}`.") from error
    if _COLUMN not in table.column_names:
        raise ZerotagError(f"{place}: no column `{_COLUMN}`, only {', '.join(table.column_names)}. Rename one of them.")
    urls = table[_COLUMN].to_pylist()
    for number, url in enumerate(urls, start=1):
        if not isinstance(url, str) or not url.strip():
            raise ZerotagError(f"{place}: row {number} has no {_COLUMN}. Fill it in or remove the row.")
    return (url.strip() for url in urls)


def read(file: str) -> bytes:
    """The bytes of a photo: of a path, or of a URL.

    Raises:
        OSError: it cannot be read.
        ZerotagError: a web server answers otherwise than with the photo.
    """
    if "://" not in file:
        return Path(file).read_bytes()
    if urlsplit(file).scheme in _WEB:
        return _fetched(file)
    files, path = file_system(file)
    with files.open_input_file(path) as stream:
        return stream.read()


def reading() -> tuple[Callable[[str], bytes], list[str]]:
    """`read`, and the reasons of photos that it could not read though they may be there."""
    unread: list[str] = []

    def noted(file: str) -> bytes:
        try:
            return read(file)
        except FileNotFoundError:
            raise
        except OSError as error:
            unread.append(f"{error}")
            raise

    return noted, unread


def need_some(unread: list[str], photos: int) -> None:
    """Check that not all of several photos are unread.

    Raises:
        ZerotagError: they are, so that a disk, a network or a permission is at fault and no photo.
    """
    if len(unread) == photos > 1:
        raise ZerotagError(f"none of its {photos} photos can be read, the first: {unread[0]}.")


def file_system(place: str) -> tuple[Any, str]:
    """The file system (of pyarrow) of a path or URL, and the path in it."""
    from pyarrow.fs import LocalFileSystem

    if "://" not in place:
        return LocalFileSystem(), str(Path(place).absolute())
    scheme, _, rest = place.partition("://")
    # The path is taken as it is: in a URL, characters such as # and % would mean something.
    return _opened(f"{scheme}://{rest.partition('/')[0]}"), posixpath.normpath(rest)


@cache
def _opened(start: str) -> Any:
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(start)[0]


@cache
def _web() -> urllib3.PoolManager:
    return urllib3.PoolManager(retries=_RETRY, timeout=_TIMEOUT)


def _fetched(url: str) -> bytes:
    try:
        answer = _web().request("GET", url, preload_content=False)
        try:
            if answer.status != 200:
                said = f"{url}: the server answers {answer.status} {answer.reason or ''}".rstrip() + "."
                raise OSError(said) if answer.status in _RETRY.status_forcelist else ZerotagError(said)
            data = answer.read(_MOST + 1, decode_content=True)
            if len(data) > _MOST:
                raise ZerotagError(f"{url}: more than {_MOST // 2**20} MB. Leave it out.")
            return data
        finally:
            answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise OSError(f"{url}: cannot be fetched ({error})") from error
