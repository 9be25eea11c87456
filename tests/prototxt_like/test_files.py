"""Files: only regular ones are read, and killed processes leave nothing for good."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imae.prototxt_like.binary import read_caffemodel, read_solverstate
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import clear_leftovers, open_regular, read_bytes, temporary_folder, write_atomically
from imae.prototxt_like.mars_info import read_tracks
from imae.prototxt_like.text import read_net

DEAD = 2**22 + 1
"""No process has this number: Linux's end below it."""


@pytest.mark.parametrize("read", [read_bytes, read_net, read_caffemodel, read_solverstate, read_tracks])
def test_pipes_devices_and_folders_are_named_and_not_read(read: object, tmp_path: Path) -> None:
    assert callable(read)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a named pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(InputError) as error:
            read(path)
        assert str(error.value) == f"{path}: is {kind}, expected a regular file"


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_what_is_no_path_is_an_error_of_one_line(path: str) -> None:
    for use in (read_bytes, open_regular, lambda name: write_atomically(name, b"")):
        with pytest.raises(InputError, match="is no path: ") as error:
            use(path)
        assert str(error.value).isprintable()


def test_pieces_are_written_one_after_another(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", [b"a", memoryview(b"bc"), bytearray(b"d")])
    assert read_bytes(tmp_path / "file") == b"abcd"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_killed_processes_left_of_a_file_goes_when_it_is_written(tmp_path: Path) -> None:
    for name in (f"net.{DEAD}.tmp", f"net.{os.getpid()}.tmp", f"other.{DEAD}.tmp", "net.1.tmp", "net.tmp"):
        (tmp_path / name).write_bytes(b"half")
    write_atomically(tmp_path / "net", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "net.1.tmp", "net.tmp", f"other.{DEAD}.tmp"]


def test_what_another_machines_process_is_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / f"net.{DEAD}.tmp"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clear_leftovers(tmp_path, "net")
        assert path.exists()
    clear_leftovers(tmp_path, "net")
    assert not path.exists()


def test_a_killed_process_temporary_folder_goes_with_the_next_and_a_living_ones_stays(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from imae.prototxt_like.files import temporary_folder
with temporary_folder(Path(sys.argv[1]), ".convert_") as folder:
    (folder / "half").write_bytes(b"half")
    time.sleep(60)
"""
    (tmp_path / ".convert_of_an_earlier_version").mkdir()
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as other:
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob(".convert_*/half")) and time.monotonic() < deadline:
            time.sleep(0.01)
        with temporary_folder(tmp_path, ".convert_") as folder:
            assert len(list(tmp_path.glob(".convert_*/half"))) == 1
            assert len(list(tmp_path.iterdir())) == 2
        assert not folder.exists()
        other.send_signal(signal.SIGKILL)
    with temporary_folder(tmp_path, ".convert_") as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())
