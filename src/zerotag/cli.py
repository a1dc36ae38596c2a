"""The command line: tag, index and search photos, apply profiles, show and roll back the champion."""

import json
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zerotag.errors import ZerotagError, plain_exit

if TYPE_CHECKING:
    from zerotag.serving.tagger import Tag, Tagger, Words

app = typer.Typer(help="Tag photos, including with words never seen in training.", no_args_is_help=True)


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
    """Tag photos, including with words never seen in training."""


Model = Annotated[
    Path | None, typer.Option(help="Folder of a packaged model.", show_default="the champion's, or served")
]


def _tagger(model: Path | None) -> "Tagger":
    from zerotag.registry.served import package_to_serve
    from zerotag.serving.tagger import Tagger

    return Tagger(model or package_to_serve())


@app.command()
def tag(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    tags: Annotated[str, typer.Option(help="Comma-separated candidate tags; any words.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Number of tags per photo.")] = 10,
    threshold: Annotated[float | None, typer.Option(help="Minimum probability of a tag, 0 to 1.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also improbable tags and near-synonyms.")] = False,
    unseen: Annotated[bool, typer.Option("--unseen", help="Only words never seen in training.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per photo and line.")] = False,
    model: Model = None,
) -> None:
    """Tag photos, with each tag's probability. An asterisk marks words never seen in training."""
    with plain_exit():
        from zerotag.serving.tagger import find_photos  # not for --help

        files = find_photos(photos)
        tagger = _tagger(model)
        words = tagger.words(tags.split(","), "unseen" if unseen else "all")
        if words.missing:
            print(f"zerotag: {words.reason}: skipped.", file=sys.stderr)
        if not as_json:
            _note(words)
        failed = 0
        for file in files:
            try:
                found = tagger.rank(tagger.embed(file.read_bytes(), str(file)), words, top, threshold, everything)
            except (ZerotagError, OSError) as error:
                failed += 1
                print(f"zerotag: {error}", file=sys.stderr)
                continue
            if as_json:
                print(json.dumps({"photo": str(file), "tags": [asdict(each) for each in found]}))
            else:
                shown = [_shown(each, mark=bool(tagger.vocabulary.seen.any())) for each in found]
                print(f"{file}: {', '.join(shown) or 'no probable tag; --all shows the best'}")
        if failed:
            raise ZerotagError(f"{failed} of {len(files)} photos cannot be tagged; see above.")


def _shown(tag: "Tag", mark: bool) -> str:
    """A tag for people; `mark` words never seen in training, where there are others."""
    also = f" ({', '.join(tag.also)})" if tag.also else ""
    return f"{tag.tag}{'*' if mark and not tag.seen else ''} {tag.probability:.0%}{also}"


def _note(*given: "Words | None") -> None:
    """Print how words were understood, unless as themselves."""
    for words in given:
        for line in words.notes if words else []:
            print(f"zerotag: {line}", file=sys.stderr)


Database = Annotated[str, typer.Option(help="The index: a folder, s3://… or db://….")]


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of photos; the index names photos by their relative path.")],
    database: Database = "work/index",
    model: Model = None,
) -> None:
    """Update the search index with the photos of a folder; only new and changed photos are processed."""
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
        print(f"{done.added} added, {done.unchanged} unchanged, {done.removed} removed, {len(done.refused)} unusable")


@app.command()
def search(
    words: Annotated[str, typer.Argument(help="Comma-separated words; photos must match all of them.")],
    without: Annotated[str, typer.Option(help="Comma-separated words that photos must not match.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Number of photos.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Number of photos to skip.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per photo and line.")] = False,
    database: Database = "work/index",
    model: Model = None,
) -> None:
    """Search the index for photos by any words."""
    with plain_exit():
        from zerotag.serving.index import open_index, search_words

        tagger = _tagger(model)
        wanted, unwanted = search_words(tagger, words.split(","), without.split(","))
        if not as_json:
            _note(wanted, unwanted)
        found = open_index(database, tagger).search(wanted.vectors, unwanted.vectors if unwanted else None, top, offset)
        for hit in found:
            print(json.dumps(asdict(hit)) if as_json else f"{hit.score:6.2f}  {hit.photo}")
        if not found:
            print("zerotag: no photos found; add photos with `zerotag index FOLDER`.", file=sys.stderr)


@app.command()
def profile(name: Annotated[str, typer.Argument(help="A file of profiles/, such as paper.")]) -> None:
    """Apply a profile to params.yaml; `git checkout params.yaml` reverts it."""
    with plain_exit():
        from zerotag.profiles import apply_profile

        for change in apply_profile(name) or ["no changes"]:
            print(change)


champion_app = typer.Typer(help="The model in production.", no_args_is_help=True)
app.add_typer(champion_app, name="champion")


@champion_app.command()
def show() -> None:
    """Print the champion's record."""
    with plain_exit():
        from zerotag.registry.champion import RECORD, read_champion

        champion = read_champion()
        if champion is None:
            raise ZerotagError(f"{RECORD}: there is no champion yet; run the flow retrain.")
        print(json.dumps(asdict(champion), indent=2))


@champion_app.command()
def rollback() -> None:
    """Roll back to the previous champion."""
    with plain_exit():
        from zerotag.registry.champion import roll_back

        before = roll_back()
        print(f"The champion is {before.id}: {before.backbone} {before.method}, promoted {before.time}.")
