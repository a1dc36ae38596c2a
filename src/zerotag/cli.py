"""The command line: `zerotag tag PHOTO…`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from zerotag.errors import ZerotagError, plain_exit

app = typer.Typer(help="Tags for photographs, words never seen in training included.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Tags for photographs, words never seen in training included."""


def best_model(best: Path) -> Path:
    """The folder of the best model, as the report stage names it.

    Raises:
        ZerotagError: no report was made yet.
    """
    if not best.is_file():
        raise ZerotagError(f"{best} is missing: run `dvc repro` first, or name a model with --model.")
    return Path(json.loads(best.read_text(encoding="utf-8"))["model"])


@app.command()
def tag(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    tags: Annotated[str, typer.Option(help="Words to choose from, with commas between; any words.")] = "",
    top: Annotated[int, typer.Option(min=1, help="How many tags a photo gets.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and photo.")] = False,
    model: Annotated[Path | None, typer.Option(help="A model's folder; the best one if not given.")] = None,
) -> None:
    """Tag photos with the best model. An asterisk marks tags never seen in training."""
    with plain_exit():
        from zerotag.tagger import Tagger, find_photos  # torch takes seconds: not for --help

        files = find_photos(photos)
        tagger = Tagger(model or best_model(Path("report/best.json")))
        words = [word for word in tags.split(",") if word.strip()]
        if words:
            known, _ = tagger.vectors(words)
            for word in words:
                if word.strip() not in known:
                    print(f"zerotag: no word vector for {word.strip()!r}, left out.", file=sys.stderr)
        failed = 0
        for file in files:
            try:
                found = tagger.tag(file.read_bytes(), str(file), words, top)
            except ZerotagError as error:
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
