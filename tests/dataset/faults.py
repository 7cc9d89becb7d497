"""Faults as they happen to a dataset, planted in a folder: each returns the name of the object that is wrong then."""

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Fault = Callable[[Path, random.Random], str]


def every_file(folder: Path) -> list[str]:
    """The objects' names, but for the card, which is its user's to edit, and what a repair has set aside."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(("set-aside/", "README.md")))


def _pick(folder: Path, draw: random.Random, pattern: str) -> Path:
    return draw.choice(sorted(folder.glob(pattern)))


def _name(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder))


def flip_a_bit(folder: Path, draw: random.Random) -> str:
    name = draw.choice(every_file(folder))
    data = bytearray((folder / name).read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    (folder / name).write_bytes(data)
    return name


def truncate(folder: Path, draw: random.Random) -> str:
    name = draw.choice(every_file(folder))
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: draw.randrange(len(data))])
    return name


def remove(folder: Path, draw: random.Random) -> str:
    name = draw.choice(every_file(folder))
    (folder / name).unlink()
    return name


def double_an_image(folder: Path, draw: random.Random) -> str:
    other = f"{draw.randrange(16**32):032x}"
    source = _pick(folder, draw, "images/*/*.*")
    target = folder / "images" / other[:2] / f"{other}{source.suffix}"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(source.read_bytes())
    return _name(folder, target)


def double_a_shard(folder: Path, draw: random.Random) -> str:
    target = folder / "data" / f"{draw.randrange(10, 99):05d}.tar"
    target.write_bytes(_pick(folder, draw, "data/*.tar").read_bytes())
    return _name(folder, target)


def swap_two_images(folder: Path, draw: random.Random) -> str:
    one, other = draw.sample(sorted(folder.glob("images/*/*.*")), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return _name(folder, one)


def cut_a_tar_at_a_member(folder: Path, draw: random.Random) -> str:
    """As a copy that stopped between two members: readers see a shorter tar and no error."""
    path = _pick(folder, draw, "data/*.tar")
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for member, data in members[: draw.randrange(len(members))]:
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(whole.getvalue())
    return _name(folder, path)


def change_a_plan(folder: Path, draw: random.Random) -> str:
    """As somebody would who edits it: unpacked, changed, packed again."""
    import zstandard

    path = _pick(folder, draw, "plan/*.zst")
    lines = zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode().splitlines(keepends=True)
    at = draw.randrange(len(lines))
    lines[at] = lines[at].replace('"prompt":"cat', '"prompt":"dog')
    path.write_bytes(zstandard.ZstdCompressor().compress("".join(lines).encode()))
    return _name(folder, path)


def change_a_row(folder: Path, draw: random.Random) -> str:
    file = folder / "manifest.parquet"
    table = pq.read_table(file)
    name = draw.choice(["prompt", "seed", "sha256", "crc32c", "path"])
    values = table[name].to_pylist()
    at = draw.choice([at for at, value in enumerate(values) if value is not None])
    values[at] = values[at] + 1 if isinstance(values[at], int) else f"{values[at][::-1]}x"
    field = table.schema.field(name)
    column = pa.array(values, field.type)
    pq.write_table(table.set_column(table.schema.get_field_index(name), field, column), file, row_group_size=10)
    return "manifest.parquet"


def put_a_foreign_object(folder: Path, draw: random.Random) -> str:
    name = draw.choice(["notes.txt", "images/readme.md", "data/part.tar.gz", "plan/old.txt", "deep/er/thing.bin"])
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(draw.randbytes(100))
    return name


def lose_an_image_and_its_shard(folder: Path, draw: random.Random) -> str:
    """What can be had from nowhere, and has to be rendered."""
    path = _pick(folder, draw, "images/*/*.*")
    path.unlink()
    for shard in folder.glob("data/*.tar"):
        data = bytearray(shard.read_bytes())
        data[600:] = bytes(len(data) - 600)
        shard.write_bytes(data)
    return _name(folder, path)


FAULTS: dict[str, Fault] = {
    "one flipped bit": flip_a_bit,
    "truncation": truncate,
    "an absent object": remove,
    "a doubled image": double_an_image,
    "a doubled shard": double_a_shard,
    "two swapped images": swap_two_images,
    "a tar cut between members": cut_a_tar_at_a_member,
    "a changed file of the plan": change_a_plan,
    "a changed row of the manifest": change_a_row,
    "a foreign object": put_a_foreign_object,
    "an image lost twice": lose_an_image_and_its_shard,
}
