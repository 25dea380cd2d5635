"""Videos that are distributed as numbered pictures, in a folder or inside a tar archive.

A sequence is a path like any video's: `.../real_train/7/real/12` is a folder, and `.../real_train/7.tar.gz/7/real/12` the folder
7/real/12 inside the archive 7.tar.gz. Archives are read as they are and never unpacked, so nothing in them can be written anywhere;
one with a link, a device or a name that leads out of it is refused as a whole. Imports nothing heavy.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from dfil.system.errors import DataError

ARCHIVES = (".tar.gz", ".tgz", ".tar")
PICTURES = (".png",)
LARGEST = 16 * 2**20  # bytes of one picture file; a crop of 224x224 pixels has 0.1


def archive_of(path: Path) -> tuple[Path, str] | None:
    """The archive that a path is or leads into, and the folder inside ("" for the archive itself); None for any other path."""
    for part in (path, *path.parents):
        if part.name.endswith(ARCHIVES) and part.is_file():
            return part, path.relative_to(part).as_posix() if part != path else ""
    return None


def is_sequence(path: str | Path) -> bool:
    """Whether the path is a folder of pictures or leads into an archive, and not a video file."""
    return Path(path).is_dir() or archive_of(Path(path)) is not None


def on_disk(path: str | Path) -> Path:
    """The file or folder that holds a video: for a sequence in an archive the archive, else the path itself."""
    inside = archive_of(Path(path))
    return inside[0] if inside else Path(path)


def list_archive(archive: Path) -> tuple[list[str], list[str]]:
    """The folders with pictures inside an archive, and the pictures of zero bytes. Goes through the whole file.

    Raises DataError for an archive that is damaged, incomplete or refused.
    """
    folders, empty = set(), []
    for folder, name, member, _ in _members(archive):
        folders.add(folder)
        if not member.size:
            empty.append(f"{folder}/{name}")
    return sorted(folders, key=_natural), sorted(empty, key=_natural)


def read_pictures(path: str | Path) -> dict[int, bytes]:
    """The picture files of one sequence as they are, by their numbers, in rising order. The numbers need not follow one another.

    Files that are not called <number>.png are passed over. Raises DataError if there is none, two have one number, or the archive
    is damaged or refused.
    """
    path = Path(path)
    inside = archive_of(path)
    files: dict[int, bytes] = {}
    for number, content in _from_archive(*inside) if inside else _from_folder(path):
        if number in files:
            raise DataError(
                f"{path} has two pictures with the number {number}; one of them does not belong there, remove it."
            )
        files[number] = content
    if not files:
        raise DataError(f"{path} holds no picture called <number>.png; fetch it again.")
    return dict(sorted(files.items()))


def is_picture(name: str) -> bool:
    """Whether a file name is <number>.png."""
    stem, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix}".lower() in PICTURES and stem.isascii() and stem.isdigit()


def _from_folder(folder: Path) -> Iterator[tuple[int, bytes]]:
    for path in folder.iterdir():
        if is_picture(path.name):
            yield int(path.stem), path.read_bytes()


def _from_archive(archive: Path, wanted: str) -> Iterator[tuple[int, bytes]]:
    for folder, name, member, tar in _members(archive):
        if folder == wanted:
            yield int(name.rpartition(".")[0]), tar.extractfile(member).read()


def _members(archive: Path) -> Iterator[tuple[str, str, tarfile.TarInfo, tarfile.TarFile]]:
    """Folder, file name and entry of every picture in an archive, after making sure that each entry is harmless."""
    try:
        with tarfile.open(
            archive, "r:*"
        ) as tar:  # some of the files called .tar.gz are not compressed
            for member in tar:
                name = PurePosixPath(member.name)
                if not (member.isfile() or member.isdir()):
                    raise DataError(
                        f"{archive} is refused: {member.name!r} is a link or a device; fetch it from its owners."
                    )
                if (
                    name.is_absolute()
                    or ".." in name.parts
                    or PureWindowsPath(member.name).drive
                    or "\\" in member.name
                ):
                    raise DataError(
                        f"{archive} is refused: {member.name!r} leads out of it; fetch it from its owners."
                    )
                if member.isfile() and is_picture(name.name):
                    if member.size > LARGEST:
                        raise DataError(
                            f"{archive} is refused: {member.name!r} has {member.size} bytes; fetch it from its owners."
                        )
                    yield name.parent.as_posix(), name.name, member, tar
            while tar.fileobj.read(
                2**20
            ):  # up to the checksum at the very end, which tells whether the file is whole
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{archive} cannot be read to its end ({error}); fetch it again."
        ) from error


def _natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in paths by their value: 2 before 10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in text.replace(".", "/").split("/")
    ]
