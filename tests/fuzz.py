"""Damaged inputs by the hundred: python tests/fuzz.py --inputs 1000 --seed 7 [--kind tar]

Each input is something good with one or more injuries drawn from its own seed. What a user would do
with it must end in rows (a damaged part may be a row with a reason) or in one DfilError of one line
that names the file: never another exception, never a hang, never more than MEMORY bytes. A kind is
a function `make(folder, rng)` that writes the input and returns what the user does with it, which
may assert that good inputs beside the damaged one are there. A further kind needs `@kind` only.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import fuzz_made
from injuries import injured, spoil

from dfil.datasets import load_records, paths
from dfil.datasets.check import check
from dfil.datasets.sequences import read_pictures
from dfil.datasets.truth import truth
from dfil.system.errors import DfilError

MEMORY = 2 * 2**30  # bytes of address space beyond what the libraries take
PATIENCE = 20  # seconds for one input
Use = Callable[[], object]
KINDS: dict[str, Callable[[Path, random.Random], Use]] = {}


def kind(make: Callable[[Path, random.Random], Use]):
    """Register a kind of damaged input under the name of the function that makes it."""
    KINDS[make.__name__] = make
    return make


class Hang(BaseException):
    """Not an Exception, so that nothing on the way catches it."""


def outcome(name: str, seed: int) -> tuple[str, str]:
    """ "rows" or "sentence", or "fault" with the traceback, of one input."""
    with tempfile.TemporaryDirectory(prefix="dfil-fuzz-") as folder:
        os.environ["DFIL_DATA"] = str(Path(folder, "data"))
        use = KINDS[name](Path(folder, "input"), random.Random(f"{name} {seed}"))
        signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(PATIENCE)
        try:
            use()
        except DfilError as error:
            said = str(error)
            fine = folder in said and "\n" not in said.strip() and 20 < len(said) < 1000
            said.encode()  # it can be printed
            return ("sentence", "") if fine else ("fault", f"says {said!r}")
        except (Exception, Hang):
            return "fault", traceback.format_exc(limit=-6)
        finally:
            signal.alarm(0)
    return "rows", ""


def _hangs(*_) -> None:
    raise Hang(f"still busy after {PATIENCE} seconds")


# ---- good trees


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def listed(root: Path, name: str, content: object) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def ffpp_tree(root: Path) -> list[Path]:
    pairs = {"train": [["000", "001"], ["002", "003"]], "val": [["004", "005"]], "test": []}
    for numbers in pairs.values():
        for a, b in numbers:
            touch(root, *(f"original_sequences/youtube/c23/videos/{n}.mp4" for n in (a, b)))
            folder = "manipulated_sequences/Deepfakes/c23/videos"
            touch(root, *(f"{folder}/{x}_{y}.mp4" for x, y in ((a, b), (b, a))))
    return [listed(root, f"splits/{split}.json", both) for split, both in pairs.items()]


def celebdf_tree(root: Path) -> list[Path]:
    touch(root, *(f"Celeb-real/id{n}_0000.mp4" for n in range(4)), "YouTube-real/00001.mp4")
    touch(root, *(f"Celeb-synthesis/id{n}_id{(n + 1) % 4}_0000.mp4" for n in range(4)))
    lines = "1 Celeb-real/id3_0000.mp4\n0 Celeb-synthesis/id3_id0_0000.mp4\n"
    return [listed(root, "List_of_testing_videos.txt", lines)]


def preview_tree(root: Path) -> list[Path]:
    entries = {}
    for actor in range(100, 104):
        where = {"set": "test" if actor == 103 else "train", "target_id": actor}
        entries[f"original_videos/{actor}/{actor}_A_001.mp4"] = {"label": "real", **where}
        name = f"method_A/{actor}/{actor}_A/900_{actor}_A_001.mp4"
        entries[name] = {"label": "fake", **where, "swapped_id": 900}
    touch(root, *entries)
    return [listed(root, "dataset.json", entries)]


def dfdc_tree(root: Path) -> list[Path]:
    lists = []
    for part in range(2):
        real = {f"r{part}{n}.mp4": {"label": "REAL", "original": None} for n in range(2)}
        fake = {f"f{part}{n}.mp4": {"label": "FAKE", "original": f"r{part}{n}.mp4"} for n in (0, 1)}
        touch(root / f"dfdc_train_part_{part}", *real, *fake)
        lists.append(listed(root, f"dfdc_train_part_{part}/metadata.json", real | fake))
    touch(root, "test/a.mp4", "test/b.mp4")
    return [*lists, listed(root, "test/labels.csv", "filename,label\na.mp4,1\nb.mp4,0\n")]


def wild_tree(root: Path) -> list[Path]:
    archives = []
    for category in ("real_train", "fake_train", "real_test", "fake_test"):
        for shard in range(2):
            path = root / category / f"{shard}.tar.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(packed(shard_members(category, shard)), 1))
            archives.append(path)
    return archives


TREES = {
    "ffpp": ffpp_tree,
    "celebdf": celebdf_tree,
    "dfdc-preview": preview_tree,
    "dfdc": dfdc_tree,
    "wilddeepfake": wild_tree,
}


def shard_members(category: str, shard: int) -> list[tarfile.TarInfo]:
    label = category.split("_")[0]
    names = [f"./{shard}/{label}/{sequence}/{n}.png" for sequence in (2, 7) for n in (3, 4, 9)]
    return [member(name) for name in names]


def member(name: str, size: int = 5, kind: bytes = tarfile.REGTYPE, target: str = ""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


def packed(members: list[tarfile.TarInfo]) -> bytes:
    """A tar of the members, each with as much content as it says, up to 100 kB."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in members:
            content = bytes(min(info.size, 10**5)) if info.isfile() else b""
            buffer.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            buffer.write(content + bytes(-len(content) % 512))
            tar.offset = buffer.tell()
    return buffer.getvalue()


# ---- kinds


def read_all(dataset: str, root: Path) -> Use:
    def use():
        json.dumps(check(dataset, root)).encode()
        for record in load_records(dataset, root):
            str(record.path).encode()
            assert record.label in (0, 1) and record.split in ("", "train", "val", "test")
            assert ".." not in Path(record.video_id).parts and record.video_id[0] != "/"

    return use


@kind
def lists(root: Path, rng: random.Random) -> Use:
    """An owners' list, JSON, CSV or plain text."""
    dataset = rng.choice([name for name in TREES if name != "wilddeepfake"])
    spoil(rng.choice(TREES[dataset](root)), rng)
    return read_all(dataset, root)


def _becomes_folder(path: Path, folder: Path, rng: random.Random) -> None:
    if path.is_file():
        path.unlink()
        path.mkdir()


def _renamed(path: Path, folder: Path, rng: random.Random) -> None:
    path.rename(path.with_name(rng.choice(("x.mp4", "9.tar.gz", "~", "a b", "ü.mp4"))))


INJURIES = (
    _becomes_folder,
    _renamed,
    lambda path, folder, rng: shutil.rmtree(path) if path.is_dir() else path.unlink(),
    lambda path, folder, rng: path.is_file() and path.write_bytes(b""),
    lambda path, folder, rng: (folder / "loop").symlink_to(folder, target_is_directory=True),
    lambda path, folder, rng: (folder / "gone.mp4").symlink_to(folder / "nowhere"),
    lambda path, folder, rng: Path(folder, "\udcff\udcfe.mp4").write_bytes(b"x"),
    lambda path, folder, rng: touch(folder, "extra/metadata.json/x.mp4", "._1.mp4"),
)


@kind
def trees(root: Path, rng: random.Random) -> Use:
    """Files and folders that are gone, empty, renamed, of another kind, or lead in circles."""
    dataset = rng.choice(list(TREES))
    TREES[dataset](root)
    for _ in range(rng.randrange(1, 4)):
        path = rng.choice([path for path in sorted(root.rglob("*")) if not path.is_symlink()])
        with suppress(FileExistsError):  # injured in the same way before
            rng.choice(INJURIES)(path, path if path.is_dir() else path.parent, rng)
    return read_all(dataset, root)


@kind
def archives(root: Path, rng: random.Random) -> Use:
    """One archive among eight: injured bytes, hostile members, bombs, headers that lie."""
    paths_ = wild_tree(root)
    bad = rng.choice(paths_)
    category, shard = bad.parent.name, int(bad.name[0])
    good = shard_members(category, shard)
    first = good[0].name
    hostile = (
        member("../../evil.png"),
        member("/tmp/evil.png"),
        member("C:\\evil.png"),
        member(first, 0, tarfile.SYMTYPE, "/etc/passwd"),
        member(first, 0, tarfile.LNKTYPE, "../../x"),
        member(first, 0, rng.choice((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE))),
        member(first, 10 ** rng.randrange(7, 18)),
        member("x" * 50_000, 5),
        member(first, 10**6, tarfile.XHDTYPE),
        member(first, 10**12, tarfile.GNUTYPE_LONGNAME),
        member(first, 10**4, tarfile.GNUTYPE_SPARSE),
        member(f"{shard}/other/1/1.png"),
        member(f"{shard}/{category.split('_')[0]}/{'9' * 400}/{'8' * 400}.png"),
        member("zo\udcff/real/1/1.png"),
        member(first),
    )
    whole = bad.read_bytes()
    options = (
        lambda: injured(whole, rng),
        lambda: injured(injured(whole, rng), rng),
        lambda: gzip.compress(injured(packed(good), rng), 1),
        lambda: injured(packed(good), rng),
        lambda: gzip.compress(packed([*good, rng.choice(hostile)]), 1),
        lambda: gzip.compress(packed([rng.choice(hostile), *good]), 1),
        lambda: bz2.compress(packed(good)),
        lambda: b"".join([packed([member("pad", 10**5)])] * 3),
        lambda: gzip.compress(whole),
        lambda: gzip.compress(packed(good) + bytes(3 * 10**8), 1),
        lambda: gzip.compress(packed([member(first, 10**6, tarfile.XHDTYPE)] * 2000)[: 10**7], 1),
    )
    bad.write_bytes(rng.choice(options)())

    def use():
        read_all("wilddeepfake", root)()
        found = load_records("wilddeepfake", root)
        for record in found:
            if record.path.is_relative_to(bad):
                try:
                    read_pictures(record.path)
                except DfilError as error:
                    assert str(bad) in str(error)
            else:
                assert list(read_pictures(record.path)) == [3, 4, 9]
        beside = [r for r in found if not r.path.is_relative_to(bad)]
        assert len(beside) == 2 * (len(paths_) - 1)
        assert not list(root.parent.rglob("evil*"))

    return use


@kind
def marks(root: Path, rng: random.Random) -> Use:
    """Our own lists in a tree: truth.json, and the listings that are kept of archives."""
    if rng.random() < 0.5:
        entry = {"frames": 9, "forged": [[2, 5]], "people": 1, "person": 0}
        spoil(listed(root, "truth.json", {"a/b": entry, "c/d": entry}), rng)
        return lambda: truth(root)
    wild_tree(root)
    load_records("wilddeepfake", root)
    (kept,) = paths.data().glob("listings/*.json")
    spoil(kept, rng)

    def use():
        assert len(load_records("wilddeepfake", root)) == 16  # made again

    return use


@kind
def settings(root: Path, rng: random.Random) -> Use:
    """dfil.toml."""
    (root / "tree").mkdir(parents=True)
    good = f'[roots]\nffpp = "{root / "tree"}"\ncelebdf = "{root / "tree"}"\n'
    odd = ('roots = "/data"', "roots = [1]", "[roots]\nffpp = 3", "[roots]\nffpp = []", "[ROOTS]")
    file = listed(root, "dfil.toml", rng.choice((good, good, *odd)))
    if rng.random() < 0.8:
        file.write_bytes(injured(file.read_bytes(), rng))
    os.environ.pop("DFIL_FFPP", None)

    def use():
        paths.project = lambda: root
        assert paths.real_root("ffpp") in (None, root / "tree")

    return use


for made in (fuzz_made.videos, fuzz_made.runs, fuzz_made.stores):
    kind(made)


def limit_memory(names: list[str]) -> None:
    """Once what the kinds damage is made, and the libraries for it are loaded."""
    for name in names:
        fuzz_made.GOOD.get(name, int)()
    if (size := Path("/proc/self/statm")).exists():
        bound = int(size.read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("--kind", choices=KINDS, action="append")
    asked = parser.parse_args()
    counts, faults, names = Counter(), [], asked.kind or list(KINDS)
    limit_memory(names)
    for n in range(asked.inputs):
        name, seed = names[n % len(names)], asked.seed + n
        what, said = outcome(name, seed)
        counts[name, what] += 1
        if what == "fault":
            faults.append(f"{name} {seed}: {said}")
    print("\n\n".join(faults[:20]))
    for (name, what), count in sorted(counts.items()):
        print(f"{name:12}{what:10}{count:6}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
