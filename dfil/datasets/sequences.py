"""Videos that are distributed as numbered pictures, in a folder or inside a tar archive.

A sequence is a path like any video's: `.../real_train/7/real/12` is a folder, and
`.../real_train/7.tar.gz/7/real/12` the folder 7/real/12 inside the archive 7.tar.gz. Archives are
read as they are and never unpacked, so nothing in them can be written anywhere; one with a link, a
device, a name that leads out of it or more than its size can hold is refused as a whole.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from dfil.datasets.adapter import folders
from dfil.datasets.lists import printable
from dfil.system.errors import DataError, MachineError, machine_fault

ARCHIVES = (".tar.gz", ".tgz", ".tar")
PICTURES = (".png",)
LARGEST = 16 * 2**20  # bytes of one picture file; a crop of 224x224 pixels has 0.1
MEMBERS = 500_000  # entries of one archive; the owners' have thousands
# Unpacked bytes of one archive: pictures do not shrink, so the rest is room for tiny test archives.
ROOM, RATIO = 2**28, 20
UNPACK = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
DAMAGE = (
    *(tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError),
    *(ValueError, OverflowError, RecursionError),
)


def archive_of(path: Path) -> tuple[Path, str] | None:
    """The archive that a path is or leads into, and the folder inside; None for any other path."""
    for part in (path, *path.parents):
        if part.name.endswith(ARCHIVES) and part.is_file():
            return part, path.relative_to(part).as_posix() if part != path else ""
    return None


def is_sequence(path: str | Path) -> bool:
    """Whether the path is a folder of pictures or leads into an archive, and not a video file."""
    return Path(path).is_dir() or archive_of(Path(path)) is not None


def on_disk(path: str | Path) -> Path:
    """The file or folder that holds a video: its archive, else the path itself."""
    inside = archive_of(Path(path))
    return inside[0] if inside else Path(path)


def list_archive(archive: Path) -> tuple[list[str], list[str]]:
    """The folders with pictures inside an archive, and the pictures of zero bytes.

    Goes through the whole file. Raises DataError for one that is damaged, incomplete or refused.
    """
    found, empty = set(), []
    for folder, name, member, _ in _members(archive):
        found.add(folder)
        if not member.size:
            empty.append(f"{folder}/{name}")
    return sorted(found, key=_natural), sorted(empty, key=_natural)


def list_folder(shard: Path) -> tuple[list[str], list[str]]:
    """As `list_archive`, of what is unpacked; a folder two below counts even without pictures.

    Raises DataError for a picture that is no file, such as a link that leads nowhere.
    """
    found, empty = [], []
    for folder in folders(shard):
        pictures = [path for path in folder.iterdir() if is_picture(path.name)]
        if pictures or folder.parent.parent == shard:
            found.append(folder.relative_to(shard.parent).as_posix())
        for path in pictures:
            name = path.relative_to(shard.parent).as_posix()
            if not path.is_file():
                raise _refused(shard, f"{name!r} is no file")
            if not path.stat().st_size:
                empty.append(name)
    return sorted(found, key=_natural), sorted(empty, key=_natural)


def read_pictures(path: str | Path) -> dict[int, bytes]:
    """The picture files of one sequence as they are, by their numbers, in rising order.

    The numbers need not follow one another; files that are not called <number>.png are passed over.
    Raises DataError if there is none, two have one number, or the archive is damaged or refused.
    """
    path = Path(path)
    inside = archive_of(path)
    files: dict[int, bytes] = {}
    for number, content in _from_archive(*inside) if inside else _from_folder(path):
        if number in files:
            raise DataError(
                f"{path} has two pictures with the number {number}; "
                "one of them does not belong there, remove it."
            )
        files[number] = content
    if not files:
        raise DataError(f"{path} holds no picture called <number>.png; fetch it again.")
    return dict(sorted(files.items()))


def is_picture(name: str) -> bool:
    """Whether a file name is <number>.png."""
    stem, dot, suffix = name.rpartition(".")
    number = stem.isascii() and stem.isdigit() and len(stem) < 19
    return number and f"{dot}{suffix}".lower() in PICTURES


def _from_folder(folder: Path) -> Iterator[tuple[int, bytes]]:
    for path in folder.iterdir():
        if is_picture(path.name):
            if not path.is_file():
                raise DataError(f"{path} is no file; fetch it again.")
            yield int(path.stem), path.read_bytes()


def _from_archive(archive: Path, wanted: str) -> Iterator[tuple[int, bytes]]:
    for folder, name, member, tar in _members(archive):
        if folder == wanted:
            yield int(name.rpartition(".")[0]), tar.extractfile(member).read()


def _members(archive: Path) -> Iterator[tuple[str, str, tarfile.TarInfo, tarfile.TarFile]]:
    """Folder, file name and entry of every picture, after making sure that each is harmless."""
    try:
        with (
            _opened(archive) as file,
            tarfile.open(fileobj=_Bounded(file, archive), mode="r:") as tar,
        ):
            for count, member in enumerate(iter(tar.next, None), start=1):
                tar.members.clear()  # it keeps every entry that it has seen
                if said := _harm(member, count):
                    raise _refused(archive, said)
                name = PurePosixPath(member.name)
                if member.isfile() and is_picture(name.name):
                    yield name.parent.as_posix(), name.name, member, tar
            while tar.fileobj.read(2**20):  # up to the checksum at the very end
                pass
    except DAMAGE as error:
        if said := machine_fault(error):
            raise MachineError(said) from error
        raise DataError(
            f"{archive} cannot be read to its end ({error}); fetch it again."
        ) from error


def _harm(member: tarfile.TarInfo, count: int) -> str:
    """Why an archive with this entry is refused, or ""."""
    name = PurePosixPath(member.name)
    if count > MEMBERS:
        return f"it has more than {MEMBERS} entries"
    if not (member.isfile() or member.isdir()) or member.issparse():
        return f"{member.name[:99]!r} is a link or a device"
    if not printable(member.name):
        return f"{member.name[:99]!a} cannot be printed"
    outside = name.is_absolute() or ".." in name.parts or PureWindowsPath(member.name).drive
    if outside or "\\" in member.name:
        return f"{member.name[:99]!r} leads out of it"
    if member.isfile() and is_picture(name.name) and member.size > LARGEST:
        return f"{member.name[:99]!r} has {member.size} bytes"
    return ""


def _opened(archive: Path) -> BinaryIO:
    """Unpacking as its first bytes say: some files called .tar.gz are not compressed."""
    with open(archive, "rb") as file:
        unpack = UNPACK.get(file.read(2), open)
    return unpack(archive, "rb")


class _Bounded(io.RawIOBase):
    """A file that is never read further, or in larger pieces, than an honest archive needs."""

    def __init__(self, file: BinaryIO, archive: Path):
        self.file, self.archive = file, archive
        self.most = ROOM + RATIO * archive.stat().st_size

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST or self.file.tell() + size > self.most + LARGEST:
            raise _refused(self.archive, f"it unpacks to more than {self.most} bytes")
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        if whence == 0 and place > self.most:
            raise _refused(self.archive, f"it unpacks to more than {self.most} bytes")
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()


def _refused(archive: Path, why: str) -> DataError:
    return DataError(f"{archive} is refused: {why}; fetch it from its owners.")


def _natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in paths by their value: 2 before 10."""
    parts = text.replace(".", "/").split("/")
    return [(int(p), "") if p.isdecimal() and len(p) < 19 else (-1, p) for p in parts]
