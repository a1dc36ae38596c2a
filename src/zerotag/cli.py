"""The command line: tag, index and search photos; choose a profile; look at the champion."""

import json
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zerotag.errors import ZerotagError, plain_exit

if TYPE_CHECKING:
    from zerotag.serving.tagger import Tagger

app = typer.Typer(help="Tags for photographs, words never seen in training included.", no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"zerotag {version('zerotag')}")
        raise typer.Exit


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tags for photographs, words never seen in training included."""


Model = Annotated[
    Path | None, typer.Option(help="A packaged model's folder.", show_default="the champion's, or served")
]


def _tagger(model: Path | None) -> "Tagger":
    from zerotag.registry.champion import champion_package
    from zerotag.serving.tagger import Tagger

    return Tagger(model or champion_package())


@app.command()
def tag(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    tags: Annotated[str, typer.Option(help="Words to choose from, with commas between; any words.")] = "",
    top: Annotated[int, typer.Option(min=1, help="How many tags a photo gets.")] = 10,
    threshold: Annotated[float | None, typer.Option(help="Leave out tags less probable than this, 0 to 1.")] = None,
    unseen: Annotated[bool, typer.Option("--unseen", help="Only words never seen in training.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and photo.")] = False,
    model: Model = None,
) -> None:
    """Tag photos. An asterisk marks words never seen in training."""
    with plain_exit():
        from zerotag.serving.tagger import find_photos  # not for --help

        files = find_photos(photos)
        tagger = _tagger(model)
        words = tagger.words(tags.split(","), "unseen" if unseen else "all")
        for word in words.missing:
            print(f"zerotag: no word vector for {word!r}, left out.", file=sys.stderr)
        failed = 0
        for file in files:
            try:
                found = tagger.rank(tagger.embed(file.read_bytes(), str(file)), words, top, threshold)
            except (ZerotagError, OSError) as error:
                failed += 1
                print(f"zerotag: {error}", file=sys.stderr)
                continue
            if as_json:
                print(json.dumps({"photo": str(file), "tags": [asdict(each) for each in found]}))
            else:
                marked = [f"{each.tag}{'' if each.seen else '*'} {each.score:.2f}" for each in found]
                print(f"{file}: {', '.join(marked)}")
        if failed:
            raise ZerotagError(f"{failed} of {len(files)} photos could not be tagged; see above.")


Database = Annotated[str, typer.Option(help="The index: a folder, s3://… or db://….")]


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="A folder of photos; the index names photos by their path in it.")],
    database: Database = "work/index",
    model: Model = None,
) -> None:
    """Bring a folder's photos into the search index; only what is new or has changed is looked at."""
    with plain_exit():
        from tqdm import tqdm

        from zerotag.serving.index import open_index, update

        if not folder.is_dir():
            raise ZerotagError(f"{folder}: no such folder.")
        tagger = _tagger(model)
        with tqdm(desc="index", unit="photo", disable=None) as bar:

            def report(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            done = update(open_index(database, tagger), tagger, folder, [""], report=report)
        for reason in done.refused.values():
            print(f"zerotag: {reason}", file=sys.stderr)
        print(
            f"{done.added} added, {done.unchanged} unchanged, {done.removed} removed, "
            f"{len(done.refused)} cannot be used"
        )


@app.command()
def search(
    words: Annotated[str, typer.Argument(help="Words with commas between; a photo has to fit all of them.")],
    without: Annotated[str, typer.Option(help="Words that must not fit as well.")] = "",
    top: Annotated[int, typer.Option(min=1, help="How many photos.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="How many photos to skip.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and photo.")] = False,
    database: Database = "work/index",
    model: Model = None,
) -> None:
    """Find photos of the index by any words."""
    with plain_exit():
        from zerotag.serving.index import open_index, search_words

        tagger = _tagger(model)
        wanted, unwanted = search_words(tagger, words.split(","), without.split(","))
        found = open_index(database, tagger).search(wanted.vectors, unwanted.vectors if unwanted else None, top, offset)
        for hit in found:
            print(json.dumps(asdict(hit)) if as_json else f"{hit.score:6.2f}  {hit.photo}")
        if not found:
            print("zerotag: no photo found; `zerotag index FOLDER` brings photos in.", file=sys.stderr)


@app.command()
def profile(name: Annotated[str, typer.Argument(help="A file of profiles/, such as paper.")]) -> None:
    """Lay a profile's parameters over params.yaml; `git checkout params.yaml` takes them back."""
    with plain_exit():
        from zerotag.profiles import apply_profile

        for change in apply_profile(name) or ["nothing changes"]:
            print(change)


champion_app = typer.Typer(help="The model in service.", no_args_is_help=True)
app.add_typer(champion_app, name="champion")


@champion_app.command()
def show() -> None:
    """Print the champion's record."""
    with plain_exit():
        from zerotag.registry.champion import RECORD, read_champion

        champion = read_champion()
        if champion is None:
            raise ZerotagError(f"{RECORD}: there is no champion yet; the flow retrain makes one.")
        print(json.dumps(asdict(champion), indent=2))


@champion_app.command()
def rollback() -> None:
    """Make the champion before this one the champion again."""
    with plain_exit():
        from zerotag.registry.champion import roll_back

        before = roll_back()
        print(f"The champion is {before.id}: {before.backbone} {before.method}, promoted {before.time}.")
