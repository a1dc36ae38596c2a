"""write_aside: an output is whole or it is not there, on a full disk too; hold: one process at a time."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from zerotag.errors import ZerotagError, plain_exit
from zerotag.files import hold, write_aside


def inside(folder: Path) -> dict[str, str]:
    """Content of all files below a folder, hidden ones too."""
    return {
        file.relative_to(folder).as_posix(): file.read_text()
        for file in folder.rglob("*")
        if file.is_file() or file.is_symlink()
    }


def test_a_file_is_written_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "out.txt"
    for text in ("one", "two"):
        with write_aside(target) as draft:
            draft.write_text(text)
            assert not target.exists() or target.read_text() == "one"
        assert inside(tmp_path) == {"new/folder/out.txt": text}


def test_a_folder_replaces_a_folder_with_all_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with write_aside(tmp_path / "out") as draft:
            draft.mkdir()
            (draft / name).write_text(name)
    assert inside(tmp_path) == {"out/b": "b"}


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), ZerotagError("bad"), OSError(errno.EIO, "")])
def test_an_exception_leaves_the_old_output_and_no_draft(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(type(error)), write_aside(tmp_path / "out") as draft:
        draft.mkdir()
        (draft / "half").write_text("half")
        raise error
    assert inside(tmp_path) == {"out/old": "old"}


def test_a_folder_that_cannot_be_moved_into_place_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(FileNotFoundError), write_aside(tmp_path / "out"):
        pass  # makes no draft
    assert inside(tmp_path) == {"out/old": "old"}


def assert_full(folder: Path, error: ZerotagError) -> None:
    """The message names the output and the mend; what stood there before still does, and nothing else."""
    assert str(folder / "out") in str(error)
    assert "disk is full" in str(error) and "Free some space" in str(error)
    assert inside(folder) == {"out": "old"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "out").write_text("old")

    def full(path: Path, text: str) -> None:
        path.touch()
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(ZerotagError) as caught, write_aside(tmp_path / "out") as draft:
            draft.write_text("new")
    assert_full(tmp_path, caught.value)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda draft: draft.write_text("x" * 100_000),
    "numpy": lambda draft: np.save(draft.open("wb"), np.zeros(100_000)),
    "scipy": lambda draft: sp.save_npz(draft.open("wb"), sp.random(1000, 1000, 0.1, "csr", random_state=0)),
    "csv": lambda draft: pd.DataFrame({"a": range(100_000)}).to_csv(draft),
    "parquet": lambda draft: pd.DataFrame({"a": range(100_000)}).to_parquet(draft),
    "torch": lambda draft: torch.save(torch.zeros(100_000), draft),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_device_is_named_whoever_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    (tmp_path / "out").write_text("old")
    # The device is full, but the disk that the link to it lies on is not; numpy's and torch's errors say nothing.
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(ZerotagError) as caught, write_aside(tmp_path / "out") as draft:
        draft.symlink_to("/dev/full")
        WRITERS[writer](draft)
    assert_full(tmp_path, caught.value)


def test_another_error_is_not_called_a_full_disk(tmp_path: Path) -> None:
    for error in (OSError(errno.EACCES, "no"), OSError("7 requested and 3 written"), RuntimeError("other")):
        with pytest.raises(type(error), match=str(error).rpartition("]")[2]), write_aside(tmp_path / "out"):
            raise error


HOLD = """
import sys
from pathlib import Path
from zerotag.files import hold
with hold(Path(sys.argv[1]), "the other"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_is_refused_or_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(ZerotagError, match=rf"the other \(process {other.pid}\) is running here"), hold(lock, "we"):
            pass
        got: list[float] = []

        def wait() -> None:
            with hold(lock, "we", wait=True):
                got.append(time.monotonic())

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        assert not got
        released = time.monotonic()
        other.stdin.write("\n")
        other.stdin.flush()
        waiting.join(30)
        assert len(got) == 1 and got[0] >= released
    # It is free, also for one that does not wait.
    with hold(lock, "we", wait=True):
        assert lock.read_text().startswith("we (process ")
    with hold(lock, "we"):
        pass


def test_a_stage_prints_the_message_alone_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, plain_exit():
        raise ZerotagError("photo.jpg: the file is empty.")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "zerotag: photo.jpg: the file is empty.\n"
