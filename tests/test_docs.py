"""Every command of docs/flows.md and docs/serving.md is run, or marked as one that cannot be run here."""

from pathlib import Path

import pytest
from conftest import PROJECT
from docs.commands import MARK, PAGES, STEPS, commands, known, prepare, run_steps


@pytest.mark.parametrize("page", PAGES)
def test_a_command_is_run_or_marked(page: str) -> None:
    found = commands((PROJECT / page).read_text())
    assert len(found) > 5
    neither = [each.text for each in found if not each.not_run and each.text not in known()]
    assert not neither, f"{page}: run them in docs/commands.py, or mark their block with {MARK!r} and why"
    both = [each.text for each in found if each.not_run and each.text in known()]
    assert not both, f"{page}: marked as not run, but run"


def test_what_is_run_is_in_the_pages() -> None:
    written = {each.text for page in PAGES for each in commands((PROJECT / page).read_text())}
    assert known() <= written, "docs/commands.py runs what no page says any more"


def test_commands_of_a_page() -> None:
    page = """
```bash
export A=b                       # a comment
one --a '#b' && \\
    two                          # another
./run three "d # e"
```
```yaml
four: 4
```
```bash
# not run here: needs Kubernetes
five
six -x
```
"""
    assert [(each.text, each.exports, each.not_run) for each in commands(page)] == [
        ("one --a '#b' && two", ("export A=b",), ""),
        ('./run three "d # e"', ("export A=b",), ""),
        ("five", (), "needs Kubernetes"),
        ("six -x", (), "needs Kubernetes"),
    ]


def test_the_quick_commands(packaged_encoder: Path, tmp_path: Path) -> None:
    """The others are run by `python -m docs.commands`."""
    said: list[str] = []
    run_steps(prepare(tmp_path), True, said.append, packaged_encoder)
    assert len(said) == sum(1 + len(step.meanwhile) for step in STEPS if step.quick)
