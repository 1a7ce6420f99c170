"""What a disk, a program or a person may do to a checkpoint: each function damages `folder`, where `draw` says.

`other` holds the checkpoints of another run, whose files have the same names and sizes.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from llmft.training import shelf


def flip(folder: Path, other: Path, draw: random.Random) -> None:
    """A bit."""
    path = a_file(folder, draw)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def overwrite(folder: Path, other: Path, draw: random.Random) -> None:
    """A block of zeros or of noise."""
    path = a_file(folder, draw)
    data = bytearray(path.read_bytes())
    at, length = draw.randrange(len(data)), draw.randint(1, 4096)
    data[at : at + length] = (
        bytes(len(data[at : at + length])) if draw.random() < 0.5 else draw.randbytes(len(data[at : at + length]))
    )
    path.write_bytes(data)


def cut(folder: Path, other: Path, draw: random.Random) -> None:
    """A truncation, perhaps to nothing."""
    path = a_file(folder, draw)
    size = path.stat().st_size
    os.truncate(path, draw.choice([0, size - 1, draw.randrange(size)]))


def extend(folder: Path, other: Path, draw: random.Random) -> None:
    """Bytes behind the end."""
    with a_file(folder, draw).open("ab") as out:
        out.write(draw.choice([b"\0", b"\n", b" ", draw.randbytes(draw.randint(1, 512))]))


def delete(folder: Path, other: Path, draw: random.Random) -> None:
    """A file, or all but the manifest, or everything in the folder."""
    files = sorted(folder.iterdir())
    which = draw.random()
    gone = [draw.choice(files)] if which < 0.8 else [path for path in files if path.name != "manifest.json" or which > 0.9]
    for path in gone:
        path.unlink()


def add(folder: Path, other: Path, draw: random.Random) -> None:
    """A file, a link or a pipe that was not there."""
    place = folder / draw.choice(["more.safetensors", "pytorch_model.bin", ".hidden", "sub/x"])
    place.parent.mkdir(exist_ok=True)
    kind = draw.randrange(3)
    if kind == 0:
        place.write_bytes(draw.randbytes(8))
    elif kind == 1:
        place.symlink_to(folder / "state.json")
    else:
        os.mkfifo(place)


def swap_within(folder: Path, other: Path, draw: random.Random) -> None:
    """Two files of the checkpoint."""
    one, two = draw.sample(sorted(folder.iterdir()), 2)
    exchange(one, two)


def swap_between(folder: Path, other: Path, draw: random.Random) -> None:
    """A file, several or all, with those of another step."""
    neighbour = draw.choice([each for each in shelf.steps_on_disk(folder.parent) if each != folder])
    names = sorted(path.name for path in folder.iterdir())
    for name in draw.sample(names, draw.choice([1, 2, len(names)])):
        exchange(folder / name, neighbour / name)


def rename(folder: Path, other: Path, draw: random.Random) -> None:
    """The folders of two steps, one for the other."""
    exchange(folder, draw.choice([each for each in shelf.steps_on_disk(folder.parent) if each != folder]))


def take_from_another_run(folder: Path, other: Path, draw: random.Random) -> None:
    """A file, several or all, from the same step of another run: the sizes are the same."""
    names = sorted(path.name for path in folder.iterdir())
    for name in draw.sample(names, draw.choice([1, 2, len(names)])):
        shutil.copy(other / folder.name / name, folder / name)


def edit_manifest(folder: Path, other: Path, draw: random.Random) -> None:
    """Text, as with an editor."""
    path = folder / "manifest.json"
    text = path.read_text()
    step, best = shelf.step_of(folder), shelf.best_step_of(folder)
    edits = [
        text.replace(f'"step": {step}', '"step": 4'),
        text.replace(f'"best_step": {best}', '"best_step": null'),
        text.replace('"data": "d"', '"data": "e"'),
        text.replace('"format": 2', '"format": 1'),
        text.replace('"bytes": ', '"bytes": 1'),
        text.replace("weights.safetensors", "../weights.safetensors"),
        text.replace("  ", " "),
        text.replace("\n", "\r\n"),
        text.rstrip("\n"),
        "{}",
        "[" * 5000,
        '{"files": {}, "facts": {}}',
        text[: text.index('"facts"')] + '"facts": {}}',
    ]
    path.write_bytes(draw.choice(edits).encode())


def replace_by_something_else(folder: Path, other: Path, draw: random.Random) -> None:
    """The folder by an empty one, a file or a link to nowhere; or a file in it by a folder or a pipe."""
    if draw.random() < 0.5:
        shutil.rmtree(folder)
        draw.choice([folder.mkdir, lambda: folder.write_bytes(b"x"), lambda: folder.symlink_to("nowhere")])()
    else:
        path = a_file(folder, draw)
        path.unlink()
        draw.choice([path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("nowhere")])()


DAMAGES: list[Callable[[Path, Path, random.Random], None]] = [
    *(flip, overwrite, cut, extend, delete, add, swap_within, swap_between, rename, take_from_another_run, edit_manifest),
    replace_by_something_else,
]


def a_file(folder: Path, draw: random.Random) -> Path:
    return draw.choice(sorted(folder.iterdir()))


def exchange(one: Path, two: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
