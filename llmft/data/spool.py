"""Token caches in the making: what is tokenised is kept as it comes, and an interrupted spooling goes on where it stopped.

A spool is a folder KEY.partial beside the finished caches, with a cache's files as far as they are written, and a journal:
one line per mark, written once all before it is on the disk. Each mark holds the examples done, the files' sizes, and a
SHA-256 over the mark before and what was written since, so that a spool is only believed as far as it is what was written.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from llmft.data.ahead import read_ahead
from llmft.data.encode import FILES, Encoded, TokenCache, written
from llmft.errors import DataError
from llmft.runs import disk, durable, signals

E = TypeVar("E")
Encode = Callable[[E], Iterable[Encoded]]
MakeAhead = Callable[[Sequence[E]], None]
JOURNAL = "journal.jsonl"
MARK_S = 5.0
"""Seconds between marks: what a kill costs at most."""
HELD = 1 << 18
"""Tokens held in memory, a document counted as HEAD tokens more."""
HEAD = 100
CHUNK_BYTES = 1 << 20
START: dict[str, Any] = {"examples": 0, "sizes": dict.fromkeys(FILES, 0), "sha256": ""}


def cached(root: Path, key: str, examples: Iterable[E], encode: Encode[E], ahead: MakeAhead[E] | None = None) -> TokenCache:
    """Open the cache `key` under `root`; if it is missing or damaged, fill it with the documents of the examples first.

    What an interrupted process has done is not done again; the examples are read over, not encoded. Processes that want the
    same key at once wait for the first one and share what it wrote. Raises LlmftError if the disk is full: repeated with
    more space, the command goes on.
    """
    folder = root / key
    with locked(root / f"{key}.lock") as alone:
        partial = root / (f"{key}.partial" if alone else f"{key}.{os.getpid()}.partial")
        if not folder.exists() or durable.verify(folder):
            durable.remove_leftovers(root)
            fill(partial, examples, encode, ahead)
            with durable.replacement(folder) as temporary:
                for name in FILES:
                    link(partial / name, temporary / name)
        if partial.exists():
            durable.remove(partial)
    return TokenCache(folder)


def fill(partial: Path, examples: Iterable[E], encode: Encode[E], ahead: MakeAhead[E] | None = None) -> None:
    """Write the documents of all examples to the spool `partial`, but for those that are in it already.

    `ahead`, if there is one, is called with the examples that are encoded next.

    Interrupted, it keeps what it has. Rows that cannot be used end it for good: others make another key.
    """
    with durable.explained(partial), Spool(partial) as spool:
        try:
            left = islice(examples, spool.examples, None)
            for example in read_ahead(left, ahead) if ahead else left:
                spool.add(list(encode(example)))
            spool.write()
        except DataError:
            durable.remove(partial)
            raise
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk: what has no mark is done again
                spool.mark()
            raise


class Spool:
    """The files of a cache that is being made; `examples` counts those whose documents are in it, each whole."""

    def __init__(self, folder: Path):
        durable.make_folder(folder)
        marks, journal_bytes = whole_marks(folder)
        self._last = marks[-1]
        self.examples: int = self._last["examples"]
        self._sizes: dict[str, int] = dict(self._last["sizes"])
        self._digests = {name: hashlib.sha256() for name in FILES}
        self._files = {name: disk.File(folder / name, append=True) for name in (*FILES, JOURNAL)}
        for name, size in {**self._sizes, JOURNAL: journal_bytes}.items():
            self._files[name].truncate(size)
        self._journal_bytes = journal_bytes
        self._held: list[list[Encoded]] = []
        self._room = HELD
        self._marked = time.monotonic()

    def add(self, documents: list[Encoded]) -> None:
        """Take the documents of one example. Raises OSError."""
        self._held.append(documents)  # a signal comes before or after this
        self._room -= sum(len(each) + HEAD for each in documents)
        if time.monotonic() - self._marked >= MARK_S:
            self.mark()
        elif self._room < 0:
            self.write()

    def write(self) -> None:
        """Write what is held; without a mark it need not outlive the machine. Raises OSError, and can be called again then."""
        with signals.deferred():
            new = written([each for documents in self._held for each in documents], self._sizes)
            for name, data in new.items():
                append(self._files[name], data, self._sizes[name])
            for name, data in new.items():
                self._digests[name].update(data)
                self._sizes[name] += len(data)
            self.examples += len(self._held)
            self._held, self._room = [], HELD

    def mark(self) -> None:
        """Bring what there is to the disk, then note it. Raises OSError."""
        with signals.deferred():
            self.write()
            self._marked = time.monotonic()
            if self.examples == self._last["examples"]:
                return
            for name in FILES:
                self._files[name].sync()
            digests = [self._digests[name].hexdigest() for name in FILES]
            mark = sealed(self._last, self.examples, dict(self._sizes), digests)
            line = json.dumps(mark).encode() + b"\n"
            append(self._files[JOURNAL], line, self._journal_bytes)
            self._files[JOURNAL].sync()
            self._last, self._journal_bytes = mark, self._journal_bytes + len(line)
            self._digests = {name: hashlib.sha256() for name in FILES}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each in self._files.values():
            each.close()


def whole_marks(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the marks, from START, up to which the files are what was written, and how many bytes of the journal that is."""
    marks, size = [START], 0
    path = folder / JOURNAL
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            found = json.loads(line)
            limits = [(name, marks[-1]["sizes"][name], found["sizes"][name]) for name in FILES]
            digests = [digest_of(folder / name, start, stop) for name, start, stop in limits]
            whole = line.endswith(b"\n") and found == sealed(marks[-1], found["examples"], found["sizes"], digests)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            break
        if not whole:
            break
        marks.append(found)
        size += len(line)
    return marks, size


def sealed(before: Mapping[str, Any], examples: int, sizes: dict[str, int], digests: list[str]) -> dict[str, Any]:
    """Return a mark; `digests` are those of the files' bytes since the mark `before`."""
    text = json.dumps([before["sha256"], examples, sizes, digests], sort_keys=True)
    return {"examples": examples, "sizes": sizes, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def digest_of(path: Path, start: int, stop: int) -> str:
    """SHA-256 in hex of a part of a file, as far as it is there."""
    digest = hashlib.sha256()
    with path.open("rb") as data:
        data.seek(start)
        while start < stop and (chunk := data.read(min(CHUNK_BYTES, stop - start))):
            digest.update(chunk)
            start += len(chunk)
    return digest.hexdigest()


def append(file: disk.File, data: bytes, size: int) -> None:
    """Write at the end of a file that should have this size; what a write that failed left there is cut off."""
    if os.fstat(file.descriptor).st_size != size:
        file.truncate(size)
    file.write(data)


def link(path: Path, target: Path) -> None:
    """Give a file a second name; where the file system has none of those, copy it."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock among processes, waiting for it; it ends with the process, however that ends.

    Yields False where the file system has no locks: all who want to then write, each for itself, and the last one stays.
    """
    with durable.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        alone = True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(lock)
