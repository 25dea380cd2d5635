"""One owner of a folder among processes and machines, on a local or a shared disk.

The lock is the file `.owner.json` in the folder: who, where, for what. It is made whole under
another name and then linked, which exactly one process can do. Its owner touches it every few
seconds. A lock is stale if its process on this machine has ended, or if on another machine nobody
touched it for three minutes by our own clock. Who takes a stale lock over first owns
`.owner.json.<its token>`, so that of several waiting processes one does, and rules for that lock
are the same.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dfil.system import process
from dfil.system.errors import MachineError, machine_fault

NAME = ".owner.json"
BEAT = 10.0  # seconds between two signs of life
STALE = 180.0  # seconds without one: longer than network disks keep old times in their caches


class _Held:
    """A lock file that this process owns, kept fresh by a thread until it is released."""

    def __init__(self, file: Path, token: str):
        self.file, self.token, self.pid = file, token, os.getpid()
        self.lost = ""
        self._done = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            holder = _read(self.file)
            if holder and holder["token"] != self.token:
                self.lost = _who(holder)
                return
            with suppress(OSError):  # the next beat tries again
                os.utime(self.file)

    def release(self) -> None:
        self._done.set()
        holder = _read(self.file)
        if holder and holder["token"] == self.token:
            self.file.unlink(missing_ok=True)
        elif holder:
            self.lost = _who(holder)


_held: dict[Path, _Held] = {}
_threads: dict[Path, threading.RLock] = {}
_guard = threading.Lock()


@contextmanager
def owner(path: Path, what: str) -> Iterator[None]:
    """Be the only owner of the folder `path`, which is made if need be, while the block runs.

    Waits for another owner and says once, on stderr, who that is; `what` is what it is then told of
    us, such as "preprocess ffpp". The same thread may enter again, and a process that the owner
    started counts as the owner. Raises MachineError if no lock can be written there, or if the
    folder was taken over because this process was stopped for minutes.
    """
    folder = Path(path).resolve()  # one name for the folder, whichever way one came
    file = folder / NAME
    with _guard:
        turn = _threads.setdefault(file, threading.RLock())
    with turn:
        held = _held.get(file)
        if held and held.pid == os.getpid():
            yield
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            token = _acquire(file, what)
        except OSError as error:
            raise MachineError(machine_fault(error) or f"{file}: {error}") from error
        if not token:  # the owner is above us
            yield
            return
        held = _held[file] = _Held(file, token)
        try:
            yield
        finally:
            del _held[file]
            held.release()
        if held.lost:
            raise MachineError(
                f"{folder}: taken over by {held.lost}, because this process gave no sign of life"
                " for minutes; call again when that has ended"
            )


def _acquire(file: Path, what: str) -> str:
    """Wait until the lock is ours; its token. Empty if a process that we descend from holds it."""
    token, told, pause = uuid.uuid4().hex, False, 0.05
    mine = file.with_name(f"{file.name}.{token}.new")
    about = {"token": token, "what": what, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    about |= {"host": socket.gethostname(), "machine": process.machine()}
    about |= {"pid": os.getpid(), "born": process.born(os.getpid())}
    try:
        mine.write_text(json.dumps(about), encoding="utf-8")
        seen, since = None, time.monotonic()
        while not _link(mine, file):
            holder, sign = _read(file), _sign(file)
            if sign is None:
                continue  # released a moment ago
            if sign != seen:
                seen, since = sign, time.monotonic()
            if holder and _above(holder):
                return ""
            if _stale(holder, time.monotonic() - since):
                if _take_over(file, mine, holder):
                    break
                continue
            if not told and pause > 1:  # a moment's wait is no news
                who = _who(holder) if holder else "another process"
                print(f"Waiting for {file.parent}: {who} works on it.", file=sys.stderr, flush=True)
                told = True
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        return token
    finally:
        mine.unlink(missing_ok=True)


def _take_over(file: Path, mine: Path, stale: dict | None) -> bool:
    """Put our lock in the place of a stale one, if that is still there; whether it was."""
    guard = file.with_name(f"{file.name}.{stale['token'][:8] if stale else 'damaged'}")
    token = _acquire(guard, "taking over")
    try:
        found = _read(file)
        if (found or {}).get("token") != (stale or {}).get("token") or not file.exists():
            return False
        os.replace(mine, file)
        return True
    finally:
        if (_read(guard) or {}).get("token") == token:
            guard.unlink(missing_ok=True)


def _link(mine: Path, file: Path) -> bool:
    """Make `file` with the contents of `mine` if there is none; whether this call made it."""
    try:
        os.link(mine, file)
    except FileExistsError:
        return False
    except OSError as error:
        if machine_fault(error) and not isinstance(error, PermissionError):
            raise
        # A disk without links, or one that forbids them: made at once, filled a moment later.
        try:
            number = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with open(number, "wb") as stream:
            stream.write(mine.read_bytes())
    return True


def _read(file: Path) -> dict | None:
    """Who holds a lock; None if nobody does or the file says nothing that can be read."""
    try:
        holder = json.loads(file.read_bytes())
        return holder if {"token", "pid", "machine"} <= holder.keys() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _sign(file: Path) -> tuple[int, int] | None:
    """Changes with every sign of life; None if there is no lock."""
    try:
        with open(file, "rb") as stream:  # opening makes a network disk look anew
            found = os.fstat(stream.fileno())
        return found.st_mtime_ns, found.st_ino
    except FileNotFoundError:
        return None


def _stale(holder: dict | None, silent: float) -> bool:
    if holder and holder["machine"] == process.machine():
        return process.born(holder["pid"]) not in (holder["born"], "?")
    return silent > STALE


def _above(holder: dict) -> bool:
    here, pid = holder["machine"] == process.machine(), holder["pid"]
    above = here and pid != os.getpid() and pid in process.ancestors()
    return above and process.born(pid) == holder["born"]


def _who(holder: dict) -> str:
    return "{what} (process {pid} on {host}, since {since})".format(**holder)
