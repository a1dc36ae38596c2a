"""Keywords in photos and in their XMP sidecars, read and written with the program exiftool, without torch or pandas.

`writing` gives tags to photos, takes them out again and records what a person accepts and rejects, `keywords` reads
what is there and tells a person's keywords from zerotag's, `tables` writes tags to a CSV file instead, and
`vocabulary_file` reads a person's list of keywords.
"""

from typing import Literal

# Where the tags of a photo are written, and how its sidecar is named.
Write = Literal["off", "sidecar", "embed", "csv"]
SidecarName = Literal["photo.jpg.xmp", "photo.xmp"]
