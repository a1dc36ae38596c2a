"""The command line: tag, index and search photos, apply profiles, show and roll back the champion."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerotag.errors import ZerotagError, plain_exit
from zerotag.files import hidden_bytes, shown
from zerotag.metadata import SidecarName, Write

if TYPE_CHECKING:
    from zerotag.metadata.writing import Change
    from zerotag.serving.index import Index
    from zerotag.serving.keywords import Wanted
    from zerotag.serving.tagger import Tag, Tagger, Words
    from zerotag.serving.update import Progress

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
    Path | None, typer.Option(help="Folder of a packaged model.", show_default="the champion, served, or the starter")
]

Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", help="Files and folders to pass over, such as '*.png' or 'screenshots'; repeatable."
    ),
]

Cluster = Annotated[
    str, typer.Option(metavar="ADDRESS", help="On a Ray cluster: HOST:PORT, auto, or local for a Ray of one's own.")
]
ShardPhotos = Annotated[int, typer.Option(help="With --cluster: photos that are done, and committed, together.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")]

# Seconds after which a person is told what still goes on.
_PATIENCE = 3.0
# GB of an index from which fewer dimensions are suggested.
_LARGE = 1.0
# Photos whose tags are printed together.
_BATCH = 16


def _tagger(model: Path | None, views: int = 1) -> "Tagger":
    """The model that answers; its network uses one thread, as `network_batches` calls it from several."""
    from zerotag.registry.served import package_to_serve
    from zerotag.serving.tagger import Tagger

    return Tagger(model or package_to_serve(), threads=1, views=views)


@app.command()
def tag(
    photos: Annotated[
        list[str],
        typer.Argument(
            help="Photos, or folders of photos; with --cluster also s3://… or tables (CSV, Parquet) with a column url."
        ),
    ],
    tags: Annotated[str, typer.Option(help="Comma-separated candidate tags; any words.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Number of tags per photo.")] = 10,
    threshold: Annotated[float | None, typer.Option(help="Minimum probability of a tag, 0 to 1.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also improbable tags and near-synonyms.")] = False,
    unseen: Annotated[bool, typer.Option("--unseen", help="Only words never seen in training.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per photo and line.")] = False,
    exclude: Exclude = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Candidate tags from a file: one a line, or a keyword list of Lightroom's.")
    ] = None,
    write: Annotated[Write, typer.Option(help="Write the tags beside the photos, into them, or to a table.")] = "off",
    sidecar_name: Annotated[SidecarName, typer.Option(help="How sidecars are named.")] = "photo.jpg.xmp",
    dry_run: DryRun = False,
    views: Annotated[
        int, typer.Option(min=1, max=2, help="2 looks at the mirror image of each photo as well, at twice the cost.")
    ] = 1,
    cluster: Cluster = "",
    output: Annotated[
        str, typer.Option(metavar="FOLDER", help="With --cluster: the folder, or s3://…, of the tags, in Parquet.")
    ] = "",
    shard: ShardPhotos = 512,
    model: Model = None,
) -> None:
    """Tag photos, with each tag's probability. An asterisk marks words never seen in training."""
    with plain_exit():
        import numpy as np  # none of these for --help
        from tqdm import tqdm

        from zerotag.data.batches import network_batches
        from zerotag.data.scan import in_words, scan
        from zerotag.metadata.keywords import GivenTag
        from zerotag.metadata.vocabulary_file import read_vocabulary
        from zerotag.metadata.writing import open_writer
        from zerotag.serving.keywords import Wanted, ranker
        from zerotag.serving.tagger import PROBABLE, split_words

        if tags and vocabulary:
            raise ZerotagError("Both --tags and --vocabulary name candidate tags. Use one of them.")
        own = read_vocabulary(vocabulary) if vocabulary else None
        if write != "off" and threshold is None and not everything:
            threshold = PROBABLE  # of words that were asked for, too
        wanted = Wanted(tuple(split_words([tags])), own, unseen, top, threshold, everything)
        if cluster:
            if write != "off" or as_json or not output:
                raise ZerotagError("--cluster writes the tags to --output FOLDER, without --write and --json.")
            _tag_on_cluster(cluster, photos, exclude or (), wanted, output, views, shard, model)
            return
        _need_cluster(photos, output)
        found = scan([Path(photo) for photo in photos], exclude or ())
        _complain(found.problems)
        if not found.photos:
            passed_over = in_words(found.skipped)
            raise ZerotagError(
                f"{', '.join(map(shown, photos))}: no photo in this folder"
                f"{f'; passed over: {passed_over}' if passed_over else ''}."
            )
        tagger = _tagger(model, views)
        words, rank = ranker(tagger, wanted)
        _complain_of_words(words, wanted)
        if not as_json and not own:
            _note(words)
        failed = 0
        batches = network_batches(
            found.photos,
            lambda file: tagger.pixels(file.read_bytes(), shown(file)),
            lambda pixels: rank(tagger.principal_vectors(np.stack(pixels))),
            _BATCH,
            tagger.at_once,
        )
        with (
            # On a terminal the lines are the progress.
            tqdm(total=len(found.photos), desc="tag", unit="photo", disable=sys.stdout.isatty() or None) as bar,
            open_writer(write, f"{tagger.info['name']}:{tagger.info['version']}", sidecar_name, dry_run) as save,
        ):
            for batch in batches:
                _complain(reason for _, reason in batch.failed)
                failed += len(batch.failed)
                for file, best in zip(batch.items, batch.results, strict=True):
                    if as_json:
                        print(json.dumps({"photo": shown(file), "tags": [asdict(each) for each in best]}))
                    else:
                        listed = ", ".join(_shown(each, mark=bool(tagger.vocabulary.seen.any())) for each in best)
                        print(f"{shown(file)}: {listed or 'no probable tag; --all shows the best'}")
                    paths = own.path if own else {}
                    given = [GivenTag(each.tag, each.probability, paths.get(each.tag, ())) for each in best]
                    try:
                        _report(save(file, given), dry_run, as_json)
                    except ZerotagError as error:
                        failed += 1
                        _complain([str(error)])
                bar.update(len(batch))
        _count(found.skipped)
        if failed or found.problems:
            total = len(found.photos) + len(found.problems)
            raise ZerotagError(f"{failed + len(found.problems)} of {total} photos cannot be tagged; see above.")


def _complain_of_words(words: "Words", wanted: "Wanted") -> None:
    if wanted.vocabulary:
        _complain(wanted.vocabulary.report(words.words))
    elif words.missing:
        _complain([f"{words.reason}: skipped."])


def _need_cluster(places: Iterable[str], output: str) -> None:
    for place in places:
        if "://" in place:
            raise ZerotagError(f"{place}: is read on a cluster. Give --cluster ADDRESS; `local` will do.")
    if output:
        raise ZerotagError("--output is for --cluster; without one, --write writes the tags.")


def _tag_on_cluster(
    address: str,
    places: list[str],
    exclude: Sequence[str],
    wanted: "Wanted",
    output: str,
    views: int,
    shard: int,
    model: Path | None,
) -> None:
    from zerotag.cluster.connect import connected
    from zerotag.cluster.photos import list_photos
    from zerotag.cluster.shards import progress
    from zerotag.cluster.tag import tag_photos
    from zerotag.registry.served import package_to_serve
    from zerotag.serving.keywords import ranker

    package = model or package_to_serve()
    words, _ = ranker(_tagger(package), wanted)  # says what is wrong with them before anything starts
    _complain_of_words(words, wanted)
    if not wanted.vocabulary:
        _note(words)
    listing = list_photos(places, exclude)
    _complain(listing.problems)
    if not listing.photos:
        raise ZerotagError(f"{', '.join(map(shown, places))}: no photo there.")
    with connected(address) as spread, progress("tag", len(listing.photos)) as report:
        assert spread
        done = tag_photos(spread, listing, package, wanted, output, views, shard, report)
    _count(listing.skipped)
    kept = f", {done.kept} of them from an earlier run" if done.kept else ""
    print(f"{done.photos - done.failed} photos tagged in {output} ({done.shards} shards{kept})", flush=True)
    unusable = done.failed + len(listing.problems)
    if unusable:
        raise ZerotagError(f"{unusable} of {done.photos + len(listing.problems)} photos cannot be tagged; see above.")


@app.command()
def untag(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    exclude: Exclude = None,
    dry_run: DryRun = False,
) -> None:
    """Take the tags that zerotag wrote out of photos, sidecars and tables again."""
    with plain_exit():
        from tqdm import tqdm

        from zerotag.data.scan import scan
        from zerotag.metadata.writing import open_untagger

        found = scan(photos, exclude or ())
        _complain(found.problems)
        failed = len(found.problems)
        with open_untagger(dry_run) as remove:
            # On a terminal the lines are the progress, as for `tag`.
            for file in tqdm(found.photos, desc="untag", unit="photo", disable=sys.stdout.isatty() or None):
                try:
                    for change in remove(file):
                        _report(change, dry_run)
                except ZerotagError as error:
                    failed += 1
                    _complain([str(error)])
        if failed:
            total = len(found.photos) + len(found.problems)
            raise ZerotagError(f"{failed} of {total} photos cannot be untagged; see above.")


def _report(change: "Change | None", dry_run: bool, to_stderr: bool = False) -> None:
    """Print what is written."""
    if change:
        print(f"  {'would write' if dry_run else 'wrote'} {change}", file=sys.stderr if to_stderr else sys.stdout)


def _complain(reasons: Iterable[str]) -> None:
    for reason in reasons:
        print(f"zerotag: {reason}", file=sys.stderr)


def _count(skipped: Mapping[str, int]) -> None:
    from zerotag.data.scan import in_words

    if text := in_words(skipped):
        print(f"zerotag: passed over: {text}.", file=sys.stderr)


def _shown(tag: "Tag", mark: bool) -> str:
    """A tag for people; `mark` words never seen in training, where there are others."""
    also = f" ({', '.join(tag.also)})" if tag.also else ""
    return f"{tag.tag}{'*' if mark and not tag.seen else ''} {tag.probability:.0%}{also}"


def _note(*given: "Words | None") -> None:
    """Print how words were understood, unless as themselves."""
    _complain(line for words in given if words for line in words.notes)


Database = Annotated[str, typer.Option(help="The index: a folder, s3://… or db://….")]


@app.command()
def index(
    folder: Annotated[
        str,
        typer.Argument(
            help="Folder of photos; the index names photos by their relative path. With --cluster also s3://… or a "
            "table (CSV, Parquet) with a column url."
        ),
    ],
    exclude: Exclude = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove deleted photos, even if more than a fifth of the folder's.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and index what is new or changes; end with Ctrl-C.")
    ] = False,
    dimensions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="In which a new index stores vectors.",
            show_default="384 from 10,000 photos on, else the model's",
        ),
    ] = None,
    database: Database = "work/index",
    cluster: Cluster = "",
    shard: ShardPhotos = 512,
    model: Model = None,
) -> None:
    """Update the search index with the photos of a folder; only new and changed photos are processed."""
    with plain_exit():
        from zerotag.serving.index import open_index
        from zerotag.serving.update import follow

        if cluster:
            if watch:
                raise ZerotagError("--watch and --cluster exclude each other: give one of them.")
            _index_on_cluster(cluster, folder, exclude or (), prune, dimensions, database, shard, model)
            return
        _need_cluster([folder], "")
        tagger = _tagger(model)
        table = open_index(database, tagger, dimensions)
        path = Path(folder)
        if not path.is_dir():
            _forget(table, path, prune)
            return
        _update(table, tagger, path, exclude or (), prune)
        if watch:
            interrupted = Event()

            def interrupt(*_: Any) -> None:
                interrupted.set()
                raise KeyboardInterrupt

            # Kept, as an interrupt that is raised in a finalizer or in a library's callback is lost.
            signal.signal(signal.SIGINT, interrupt)
            with suppress(KeyboardInterrupt):
                for _ in follow(path, database, interrupted):
                    try:
                        _update(table, tagger, path, exclude or (), prune, quiet=True)
                    except ZerotagError as error:  # such as a drive that is taken off
                        _complain([str(error)])


def _update(
    index: "Index", tagger: "Tagger", folder: Path, exclude: Sequence[str], prune: bool, quiet: bool = False
) -> None:
    """Update the index and print what was done; quiet: only if something was."""
    from tqdm import tqdm

    from zerotag.serving.update import root_of, update

    root, path = root_of(index, folder)
    with tqdm(desc="index", unit="photo", disable=True if quiet else None) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        done = update(index, tagger, root, [path], report=report, exclude=exclude, prune=prune, links_out=True)
    if quiet and not (done.added or done.moved or done.removed):
        return
    _complain([*done.problems, *done.refused.values()])
    _print_update(done)
    _complain(_advice(index) if done.added else [])
    if done.added or done.moved or done.removed:
        with suppress(TimeoutError):
            index.tidy_soon().result(_PATIENCE)
            return
        _complain(
            ["the index is being compacted; it can be searched meanwhile. Ctrl-C leaves that to the next update."]
        )


def _advice(index: "Index") -> list[str]:
    """What to know of an index that began small, and has become large."""
    from zerotag.serving.index import FEWER

    size, small = (len(index) * share * index.photo_bytes / 1e9 for share in (1, FEWER / index.dimensions))
    if size < _LARGE or index.basis or index.dimensions <= FEWER:
        return []
    return [
        f"the vectors of {len(index):,} photos take {size:.1f} GB; a new index (another --database) stores them in "
        f"{FEWER} dimensions, which take {small:.1f} GB (docs/search.md)"
    ]


def _print_update(done: "Progress") -> None:
    _count(done.skipped)
    unusable = len(done.refused) + len(done.problems)
    print(
        f"{done.added} added, {done.unchanged} unchanged, {f'{done.moved} moved, ' if done.moved else ''}"
        f"{done.removed} removed, {unusable} unusable",
        flush=True,
    )


def _index_on_cluster(
    address: str,
    place: str,
    exclude: Sequence[str],
    prune: bool,
    dimensions: int | None,
    database: str,
    shard: int,
    model: Path | None,
) -> None:
    from zerotag.cluster.connect import connected
    from zerotag.cluster.index import index_photos
    from zerotag.cluster.photos import is_remote
    from zerotag.cluster.shards import progress
    from zerotag.registry.served import package_to_serve
    from zerotag.serving.index import open_index

    package = model or package_to_serve()
    if not (is_remote(place) or Path(place).is_dir()):
        _forget(open_index(database, _tagger(package)), Path(place), prune)
        return
    with connected(address) as spread, progress("index") as report:
        assert spread
        done = index_photos(spread, place, package, database, dimensions, exclude, prune, shard, report)
    _complain(done.problems)
    _print_update(done)


def _forget(index: "Index", folder: Path, prune: bool) -> None:
    """Remove a folder that does not exist from the index, if asked to."""
    root = shown(folder.absolute())
    count = index.count(root)
    if not (count and prune):
        hint = f" Its {count:,} photos stay in the index; `--prune` removes them." if count else ""
        raise ZerotagError(f"{shown(folder)}: no such folder.{hint}")
    index.remove_root(root)
    print(f"0 added, 0 unchanged, {count} removed, 0 unusable")


@app.command()
def search(
    words: Annotated[str, typer.Argument(help="Comma-separated words; photos must match all of them.")] = "",
    without: Annotated[str, typer.Option(help="Comma-separated words that photos must not match.")] = "",
    like: Annotated[
        Path | None, typer.Option(metavar="PHOTO", help="Photos that resemble this one, indexed or not.")
    ] = None,
    folder: Annotated[
        str, typer.Option(help="Only photos of this folder: its path below the indexed folder, or its full path.")
    ] = "",
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Only photos taken on this day or later."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Only photos taken on this day or earlier."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of photos.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Number of photos to skip.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per photo and line.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print only the photos' full paths, one per line.")] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="Like --paths, for xargs -0.")] = False,
    links: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Fill this folder with symbolic links to the photos.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all photos, also of a large index.")] = False,
    database: Database = "work/index",
    model: Model = None,
) -> None:
    """Search the index for photos by any words, by an example photo, or by both."""
    with plain_exit():
        if as_json and (paths or null):
            raise ZerotagError("--json, --paths and -0 exclude each other: give one of them.")
        from zerotag.serving.index import Where, open_index, search_words
        from zerotag.serving.links import write_links
        from zerotag.serving.tagger import split_words
        from zerotag.serving.update import find_example

        tagger = _tagger(model)
        wanted, unwanted = search_words(tagger, split_words([words]), split_words([without]), like is not None)
        if not as_json:
            _note(wanted, unwanted)
        table = open_index(database, tagger)
        example, known = find_example(table, tagger, like) if like else (None, None)
        where = Where(None, folder, since.date() if since else None, until.date() if until else None, apart_from=known)
        found = table.search(
            wanted.vectors if wanted else None,
            unwanted.vectors if unwanted else None,
            top,
            offset,
            where,
            example,
            exact,
        )
        if links:
            write_links(links, found)
        if as_json:
            for hit in found:
                print(json.dumps(asdict(hit)))
        elif paths or null:
            for hit in found:
                # In bytes: a name need not be valid UTF-8.
                path = os.fsencode(hidden_bytes(f"{hit.root}/{hit.photo}"))
                sys.stdout.buffer.write(path + (b"\0" if null else b"\n"))
        elif found:
            several = len(table.roots()) > 1
            for hit in found:
                print(f"{hit.score:6.2f}  {f'{hit.root}/{hit.photo}' if several else hit.photo}")
        if not found:
            reason = "no photos found; add photos with `zerotag index FOLDER`."
            if len(table):
                reason = (
                    "no photos found; search for other words, or with less of --without, --folder, --since, --until."
                )
            _complain([reason])


@app.command()
def duplicates(
    similarity: Annotated[
        float | None, typer.Option(min=0.5, max=1, help="Least similarity of photos that are not the same.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per group and line.")] = False,
    database: Database = "work/index",
    model: Model = None,
) -> None:
    """List photos that are in the index more than once, or nearly so, in groups; nothing is deleted."""
    with plain_exit():
        from zerotag.serving.duplicates import ALIKE, find_duplicates
        from zerotag.serving.index import open_index

        none = True
        for group in find_duplicates(open_index(database, _tagger(model)), similarity or ALIKE):
            paths = [f"{root}/{photo}" for root, photo in group.photos]
            if as_json:
                print(json.dumps({"same": group.same, "similarity": round(group.similarity, 4), "photos": paths}))
            else:
                print("" if none else "\n", end="")
                print("same content:" if group.same else f"alike ({group.similarity:.2f}):", *paths, sep="\n  ")
            none = False
        if none:
            _complain(["no duplicates found."])


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
def challenger() -> None:
    """Print the record of the model that answers beside the champion, and how it differed so far."""
    with plain_exit():
        from zerotag.registry.champion import CHALLENGER, read_challenger, read_champion
        from zerotag.registry.reasons import RetrainSettings
        from zerotag.registry.shadow import challenger_evidence
        from zerotag.settings import from_params, read_params

        champion, other = read_champion(), read_challenger()
        if champion is None or other is None:
            raise ZerotagError(f"{CHALLENGER}: no model answers beside the champion.")
        settings = from_params(RetrainSettings, read_params().get("retrain"), "retrain")
        evidence = challenger_evidence(Path(settings.requests), champion, other)
        print(json.dumps({**asdict(other), "shadow": asdict(evidence)}, indent=2))


@champion_app.command()
def rollback() -> None:
    """Roll back to the previous champion."""
    with plain_exit():
        from zerotag.registry.champion import roll_back

        before = roll_back()
        print(f"The champion is {before.id}: {before.backbone} {before.method}, promoted {before.time}.")
