"""Locks, files written whole, and what is a fault of the machine."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from dfil.system import files, locks, process
from dfil.system.errors import DataError, MachineError, machine_fault
from dfil.system.files import atomic
from dfil.system.locks import owner

HOLD = """
import sys, time
from dfil.system.locks import owner
with owner(sys.argv[1], "holding"):
    print("mine", flush=True)
    time.sleep(float(sys.argv[2]))
"""
COUNT = """
import sys, time
from pathlib import Path
from dfil.system.locks import owner
folder = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with owner(folder, "counting"):
        number = int((folder / "number").read_text())
        time.sleep(0.002)
        (folder / "new").write_text(str(number + 1))
        (folder / "new").replace(folder / "number")
"""


@pytest.fixture
def started():
    """Starts a script in a process of its own, which ends with the test."""
    processes = []

    def start(script: str, *arguments) -> subprocess.Popen:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, **pipes))
        return processes[-1]

    yield start
    for running in processes:
        running.kill()
        running.communicate()


def test_processes_take_turns_even_when_some_are_killed(tmp_path, started):
    (tmp_path / "number").write_text("0")
    workers = [started(COUNT, tmp_path, 60) for _ in range(3)]
    victims, chance = [started(COUNT, tmp_path, 10_000) for _ in range(3)], random.Random(0)
    for victim in victims:
        time.sleep(0.5 + chance.random())
        victim.kill()
        victim.wait()
    before = [worker.wait(timeout=60) for worker in workers]
    assert before == [0, 0, 0]
    assert int((tmp_path / "number").read_text()) >= 180
    with owner(tmp_path, "looking"):
        left = {path.name for path in tmp_path.glob(".owner*") if not path.name.endswith(".new")}
    assert left <= {locks.NAME} | {path.name for path in tmp_path.glob(".owner.json.*")}


def test_a_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, started):
    holder = started(HOLD, tmp_path, 600)
    assert holder.stdout.readline() == "mine\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / locks.NAME).is_file()
    start = time.monotonic()
    with owner(tmp_path, "taking over"):
        assert locks._read(tmp_path / locks.NAME)["pid"] == os.getpid()
    assert time.monotonic() - start < 5
    assert not (tmp_path / locks.NAME).exists()


def test_who_waits_says_once_for_whom(tmp_path, capsys, started):
    holder = started(HOLD, tmp_path, 3)
    holder.stdout.readline()
    with owner(tmp_path, "waiting"):
        assert holder.poll() is not None or holder.wait(timeout=5) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"Waiting for {tmp_path}: holding (process {holder.pid} on " in said


def test_a_moments_wait_is_no_news(tmp_path, capsys, started):
    holder = started(HOLD, tmp_path, 0.3)
    holder.stdout.readline()
    with owner(tmp_path, "waiting"):
        assert holder.wait(timeout=5) == 0
    assert capsys.readouterr().err == ""


def test_the_same_thread_may_enter_again_and_a_second_thread_waits(tmp_path):
    order = []

    def second():
        with owner(tmp_path, "second"):
            order.append("second")

    with owner(tmp_path, "outer"), owner(str(tmp_path), "inner"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_process_that_the_owner_started_counts_as_the_owner(tmp_path, started):
    with owner(tmp_path, "outer"):
        child = started(HOLD, tmp_path, 0)
        assert child.wait(timeout=30) == 0
        assert (tmp_path / locks.NAME).is_file()


def elsewhere(folder: Path) -> Path:
    """A lock of a machine that is not this one."""
    folder.mkdir(exist_ok=True)
    other = {"token": "0" * 32, "what": "training", "host": "far", "machine": "0" * 12}
    file = folder / locks.NAME
    file.write_text(json.dumps(other | {"pid": 1, "born": "1", "since": "noon"}))
    return file


def test_another_machines_lock_is_stale_only_without_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "STALE", 1.0)
    file, done = elsewhere(tmp_path), threading.Event()

    def beats():
        while not done.wait(0.1):
            os.utime(file)

    threading.Thread(target=beats, daemon=True).start()
    threading.Timer(2.5, done.set).start()
    start = time.monotonic()
    with owner(tmp_path, "waiting"):
        assert time.monotonic() - start > 3


def test_an_owner_that_was_taken_over_says_so_and_leaves_the_new_owners_lock(tmp_path):
    with pytest.raises(MachineError, match="taken over by training"), owner(tmp_path, "stopped"):
        elsewhere(tmp_path)
    assert (tmp_path / locks.NAME).is_file()


def test_a_folder_that_takes_no_lock_is_an_error_of_the_machine(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="file"), owner(tmp_path / "file" / "below", "trying"):
        pass

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "write_text", denied)
    with pytest.raises(MachineError, match="not permitted"), owner(tmp_path, "trying"):
        pass


def test_a_disk_that_runs_full_leaves_the_old_file_and_nothing_unfinished(tmp_path):
    file = tmp_path / "table.csv"
    with atomic(file) as part:
        part.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as caught, atomic(file) as part:
            part.write_bytes(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the disk allows no file of this size" in machine_fault(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_text() == "old"


@pytest.mark.parametrize("fails", ["replace", "fsync"])
def test_a_move_or_sync_that_finds_the_disk_full_leaves_the_old_file(tmp_path, monkeypatch, fails):
    (tmp_path / "a").write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "a")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError), atomic(tmp_path / "a") as part:
        part.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_leftovers_are_removed_and_unfinished_files_of_living_processes_are_not(tmp_path, started):
    other = started("input()")
    ended = started("pass")
    ended.wait()
    here = process.machine()
    alive = [f"a.npy.{pid}-{here}-0.part" for pid in (os.getpid(), other.pid)]
    far = "a.npy.1-0123456789ab-0.part"
    dead = [f"a.npy.{ended.pid}-{here}-3.part", f"a.npy.{ended.pid}.part", far + "x.1-ab-0.part"]
    for name in (*alive, far, *dead):
        (tmp_path / name).touch()
    os.utime(tmp_path / dead[2], (0, 0))
    files.remove_leftovers(tmp_path, "a.npy*.part")
    assert {path.name for path in tmp_path.iterdir()} == {*alive, far}


def broken(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error, said",
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y.npy"),
            "/x/y.npy: the disk is full",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: not permitted"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files"),
        (OSError(errno.EIO, "Input/output error", "a"), "does not answer"),
        (FileExistsError(errno.EEXIST, "File exists", "a"), "a: a file is in the way"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "a/b: a file is in the way"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), "a: a folder is in the way"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), "a: a longer name than"),
        (OSError("[Errno 28] Error writing bytes to file"), "disk is full"),  # arrow
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk is full"),
        (RuntimeError("unexpected pos 103168 vs 103064"), "disk is full"),  # torch's archives
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory does not suffice"),
        (MemoryError(), "memory does not suffice"),
        (BrokenProcessPool("terminated abruptly"), "a worker process was killed"),
        (broken(DataError("v.mp4: unreadable"), OSError(errno.EIO, "")), "does not answer"),
        (MachineError("as it was said"), "as it was said"),
    ],
)
def test_faults_of_the_machine_are_known(error, said):
    assert said in machine_fault(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("not a video"),
        FileNotFoundError(errno.ENOENT, "No such file", "a"),
        DataError("a.mp4: the disk is full of such videos: No space left on device"),
        broken(DataError("a"), ValueError("b")),
    ],
)
def test_faults_of_the_input_are_none_of_the_machine(error):
    assert machine_fault(error) == ""


def test_a_full_disk_is_known_whoever_writes():
    for write in (lambda f: f.write(bytes(10**6)), lambda f: np.zeros(10**6).tofile(f)):
        with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:
            write(file)
        assert "disk is full" in machine_fault(caught.value)


def test_a_damaged_video_is_no_fault_of_the_machine_and_one_without_permission_is(
    tmp_path, monkeypatch
):
    import av

    file = tmp_path / "a.mp4"
    file.write_bytes(b"no video")
    damaged = av.error.OSError(errno.EIO, "Input/output error", str(file))
    assert machine_fault(damaged) == ""

    def denied(name, *_):
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr("builtins.open", denied)
    assert "not permitted" in machine_fault(damaged)


def test_the_block_that_ci_puts_on_connections_lets_only_this_machine_through():
    code = """
import socket, urllib.request
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), timeout=5).close()
for call in (
    lambda: urllib.request.urlopen("https://download.pytorch.org/models/resnet50.pth"),
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=5),
    lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
):
    try:
        call()
    except OSError as error:
        assert "not allowed here" in str(error), error
    else:
        raise SystemExit("connected")
"""
    offline = str(Path(__file__).parent / "offline")
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, env=os.environ | {"PYTHONPATH": offline}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
