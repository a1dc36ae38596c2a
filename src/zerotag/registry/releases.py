"""Champions as DVC's users look them up: Git tags in the notation of GTO, DVC's registry.

::

    zerotag@v3.0.0     the third champion; the tag's commit holds dvc.lock and champion.json as they were promoted
    zerotag#prod#4     from then on, the version of the same commit is in production; the last such tag counts
    zerotag#shadow#5   likewise, it answers beside the champion; its commit, too, is as it will be promoted

A tag is on a commit of its own, a child of the current one, so that neither the branch nor the index changes.
`dvc artifacts get URL zerotag --stage prod` fetches the package from any other folder. `fetch` and `push` share the
tags between checkouts.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from zerotag.errors import ZerotagError

ARTIFACT, PRODUCTION, SHADOW = "zerotag", "prod", "shadow"
_REFS = [f"refs/tags/{ARTIFACT}{kind}*:refs/tags/{ARTIFACT}{kind}*" for kind in "@#"]
_UNSHARED = "champions are not shared with other checkouts"
_NAME = {"GIT_AUTHOR_NAME": "zerotag", "GIT_AUTHOR_EMAIL": "zerotag@localhost"}
_NAME |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in _NAME.items()}


def release(
    champion: str,
    files: list[str],
    project: Path = Path(),
    new: bool = True,
    stage: str = PRODUCTION,
    renamed: Mapping[str, str] | None = None,
) -> str:
    """Tag a kept model as in a stage, such as production, and as a version if it is none yet.

    Args:
        champion: its id.
        files: untracked files that belong to its version, such as its record; those that are missing are left out.
        project: the project folder.
        new: whether dvc.lock and the code are as they made it; otherwise no version is made of them.
        stage: prod or shadow.
        renamed: files that are others in its version, by their names there.

    Returns:
        The version, such as v3.0.0; empty if it has none, as outside the root of a Git repository with a commit.

    Raises:
        ZerotagError: Git failed.
    """
    if not (project / ".git").exists() or not _git(project, "for-each-ref", "--count=1", "refs/heads"):
        return ""
    versions = _tags(project, f"{ARTIFACT}@v*")
    name = next((tag for tag, subject in versions.items() if subject == champion), "")
    if not name and not new:
        return ""
    if not name:
        numbers = [int(tag.partition("@v")[2].partition(".")[0]) for tag in versions]
        name = f"{ARTIFACT}@v{max(numbers, default=0) + 1}.0.0"
        _git(
            project, "tag", "--annotate", "--message", champion, name, _commit(project, champion, files, renamed or {})
        )
    # GTO counts the tags of all stages together.
    counts = [int(tag.rpartition("#")[2]) for tag in _tags(project, f"{ARTIFACT}#*#*")]
    tag = f"{ARTIFACT}#{stage}#{max(counts, default=0) + 1}"
    _git(project, "tag", "--annotate", "--message", champion, tag, f"{name}^{{commit}}")
    return name.partition("@")[2]


def push(remote: str, project: Path = Path()) -> None:
    """Push the tags of all champions to a Git remote.

    Raises:
        ZerotagError: Git failed, as when another checkout has pushed other champions under these names.
    """
    _git(project, "push", "--quiet", remote, *_REFS, so=_UNSHARED)


def fetch(remote: str, files: list[str], champion: str, project: Path = Path()) -> str:
    """Fetch the tags of all champions from a Git remote, and restore files of the one in production.

    Args:
        remote: name of the Git remote.
        files: files and folders of a version; the branch, the index and all other files stay.
        champion: the id of the champion here; its files are not touched.
        project: the project folder.

    Returns:
        The id of the champion whose files were restored; empty if there was nothing to restore.

    Raises:
        ZerotagError: Git failed, as when this checkout has other champions under these names.
    """
    _git(project, "fetch", "--quiet", remote, *_REFS, so=_UNSHARED)
    stages = _tags(project, f"{ARTIFACT}#{PRODUCTION}#*")
    newest = max(stages, key=lambda tag: int(tag.rpartition("#")[2]), default="")
    if not newest or stages[newest] == champion:
        return ""
    names = _git(project, "ls-tree", "-r", "--name-only", newest, "--", *files).splitlines()
    _git(project, "restore", "--source", newest, "--worktree", "--", *names)
    return stages[newest]


def _tags(project: Path, pattern: str) -> dict[str, str]:
    """The subjects of tags by name."""
    listed = _git(project, "tag", "--list", pattern, "--format", "%(refname:short) %(contents:subject)")
    return {name: subject for name, _, subject in (line.partition(" ") for line in listed.splitlines())}


def _commit(project: Path, champion: str, files: list[str], renamed: Mapping[str, str]) -> str:
    """Commit the tracked files as they are, and some others, without a change of the branch or the index."""
    with TemporaryDirectory() as folder:
        copy = shutil.copy(project / _git(project, "rev-parse", "--git-path", "index"), folder)
        index = {"GIT_INDEX_FILE": copy}
        _git(project, "add", "--update", ".", **index)
        _git(project, "add", "--force", "--", *(file for file in files if (project / file).is_file()), **index)
        for name, file in renamed.items():
            content = _git(project, "hash-object", "-w", file)
            _git(project, "update-index", "--add", "--cacheinfo", f"100644,{content},{name}", **index)
        tree = _git(project, "write-tree", **index)
    return _git(project, "commit-tree", "-p", "HEAD", "-m", f"Champion {champion}", tree)


def _git(project: Path, *arguments: str, so: str = "the champion has no tag", **environment: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=project, env={**os.environ, **_NAME, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise ZerotagError(f"git {arguments[0]} failed, so that {so}: {done.stderr.strip()}")
    return done.stdout.strip()
