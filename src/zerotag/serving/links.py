"""Show search results as a folder of symbolic links, for any program that shows folders."""

from collections.abc import Sequence
from pathlib import Path

from zerotag.errors import ZerotagError
from zerotag.files import hidden_bytes, shown, write_aside
from zerotag.serving.index import Hit

# In a folder that holds nothing but links of this program.
_MARK = ".zerotag-links"
# Bytes of a file name, less than file systems allow.
_LONGEST = 200


def write_links(folder: Path, hits: Sequence[Hit]) -> None:
    """Fill a folder with links to photos, numbered by rank. A folder of an earlier call is replaced.

    Args:
        folder: it need not exist; other folders than those of an earlier call have to be empty.
        hits: search results, best first.

    Raises:
        ZerotagError: the folder holds something else.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ZerotagError(f"{shown(folder)}: not a folder. Name another one, or remove it.")
    content = list(folder.iterdir()) if folder.is_dir() else []
    ours = any(file.name == _MARK for file in content)
    if other := [file for file in content if not (ours and (file.is_symlink() or file.name == _MARK))]:
        raise ZerotagError(
            f"{shown(folder)}: it holds {shown(other[0].name)}, which is not a link of an earlier search. Name another "
            "folder, or empty it."
        )
    digits = max(3, len(str(len(hits))))
    with write_aside(folder.absolute()) as draft:
        draft.mkdir()
        (draft / _MARK).touch()
        for rank, hit in enumerate(hits, 1):
            photo = Path(hidden_bytes(f"{hit.root}/{hit.photo}"))
            # As text, since the name need not be valid UTF-8; with its end, which has the extension.
            name = shown(photo.name).encode()[-_LONGEST:].decode(errors="ignore")
            (draft / f"{rank:0{digits}d} {name}").symlink_to(photo)
