"""Images of scenes, from emoji on plain backgrounds. The emoji come from npm and are not kept in the repository."""

import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tools.pocket.objects import BACKGROUNDS, things
from tools.pocket.scenes import SIDE, Scene

PACKAGE = "emoji-datasource-google@16.0.0"
_JITTER = 1
_COLOUR_JITTER = 5

Sprites = dict[str, Image.Image]


def fetch_emoji(folder: Path) -> Path:
    """The npm package's archive in `folder`, downloaded once through npm."""
    archive = folder / f"{PACKAGE.replace('@', '-')}.tgz"
    if not archive.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True)
    return archive


def load_sprites(archive: Path) -> Sprites:
    """Each object's emoji with transparency, cut to what is visible."""
    with tarfile.open(archive) as package:
        members = {member.name: member for member in package.getmembers()}

        def read(name: str) -> object:
            return package.extractfile(members[f"package/{name}"])

        images = {entry["short_name"]: entry["image"] for entry in json.load(read("emoji.json"))}  # type: ignore[arg-type]
        return {thing.emoji: _open(read(f"img/google/64/{images[thing.emoji]}")) for thing in things()}


def _open(file: object) -> Image.Image:
    image = Image.open(file).convert("RGBA")  # type: ignore[arg-type]
    return image.crop(image.getchannel("A").getbbox())


def compose(scene: Scene, sprites: Sprites, draw: np.random.Generator | None = None) -> UInt8[np.ndarray, "S S 3"]:
    """The image of a scene; with `draw`, places, sizes and the background's shade vary a little."""
    shade = np.array(BACKGROUNDS[scene.background])
    if draw is not None:
        shade = np.clip(shade + draw.integers(-_COLOUR_JITTER, _COLOUR_JITTER + 1, size=3), 0, 255)
    canvas = Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in shade))
    for thing, size, centre in scene.spots():
        _paste(canvas, sprites[thing.emoji], size, centre, draw)
    return np.asarray(canvas)


def _paste(
    canvas: Image.Image, sprite: Image.Image, size: int, centre: tuple[int, int], draw: np.random.Generator | None
) -> None:
    x, y = centre
    if draw is not None:
        reach = _JITTER
        x, y = (place + int(draw.integers(-reach, reach + 1)) for place in (x, y))
        size += int(draw.integers(-1, 2))
    scaled = resize(sprite, size)
    canvas.paste(scaled, (x - scaled.width // 2, y - scaled.height // 2), scaled)


def resize(sprite: Image.Image, size: int) -> Image.Image:
    """The sprite with its longest side at `size` pixels."""
    scale = size / max(sprite.size)
    width, height = (max(1, round(side * scale)) for side in sprite.size)
    return sprite.resize((width, height), Image.Resampling.LANCZOS)


def sheet(images: UInt8[np.ndarray, "N H W 3"], columns: int) -> Image.Image:
    """All images in rows, for a look."""
    rows = -(-len(images) // columns)
    height, width = images.shape[1:3]
    canvas = Image.new("RGB", (columns * (width + 2), rows * (height + 2)), (255, 255, 255))
    for index, image in enumerate(images):
        canvas.paste(Image.fromarray(image), (index % columns * (width + 2), index // columns * (height + 2)))
    return canvas
