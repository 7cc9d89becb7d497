"""Judge the exported folder and write its card: what was asked, how it was judged, what came out."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from promptmill.worker.program import fetch
from promptmill.worker.sdxl.program import Model, Program
from promptmill.worker.sdxl.requests import PlainRequest
from tools.pocket import judge
from tools.pocket.captions import plain_caption
from tools.pocket.card import write_card
from tools.pocket.export import DEFAULT_FOLDER
from tools.pocket.images import sheet
from tools.pocket.objects import BACKGROUNDS, held_out, things
from tools.pocket.scenes import PLACES, Scene

STEPS, GUIDANCE = 10, 3.5
_BATCH = 20
_GUIDANCES = (1.001, 2.0, 3.5, 5.0, 8.0)


@dataclass(frozen=True)
class Score:
    """Of so many images, those with the right background and those with all objects right."""

    images: int
    backgrounds: float
    objects: float


class Renderer:
    """The folder as the worker runs it, in float32."""

    def __init__(self, folder: Path) -> None:
        self.model = Model.load(folder, dtype=jnp.float32)
        self.side = self.model.default_size
        self._program: Program | None = None

    def __call__(self, requests: Sequence[PlainRequest]) -> np.ndarray:
        self._program = self._program or self.model.compile(
            width=self.side, height=self.side, guided=True, per_device_batch=_BATCH
        )
        parts = [requests[first : first + _BATCH] for first in range(0, len(requests), _BATCH)]
        return np.concatenate([self._part(self._program, part) for part in parts])

    def _part(self, program: Program, requests: Sequence[PlainRequest]) -> np.ndarray:
        return np.asarray(fetch(program.run(program.prepare(requests)), len(requests)).pixels)

    def request(self, prompt: str, seed: int) -> PlainRequest:
        return PlainRequest(prompt, self.side, self.side, seed=seed, num_inference_steps=STEPS, guidance_scale=GUIDANCE)


def main() -> None:
    options = _options()
    renderer = Renderer(options.folder)
    numbers: dict[str, Any] = {"steps": STEPS, "guidance": GUIDANCE, "timing": timing(renderer)}
    scenes = held_out_scenes(options.count)
    images = renderer([renderer.request(plain_caption(scene), seed) for seed, scene in enumerate(scenes)])
    numbers["held_out"] = score(images, scenes)
    numbers["misses"] = misses(images, scenes)
    numbers["kinds"] = {name: _score_of(renderer, scenes) for name, scenes in other_scenes(options.count // 8).items()}
    numbers["seeds"] = seeds_differ(renderer)
    numbers["negative"] = negative_prompt(renderer)
    numbers["guidances"] = {value: _at_guidance(renderer, scenes[:60], value) for value in _GUIDANCES}
    numbers["psnr"] = None if options.no_diffusers else agreement(renderer, options.folder, scenes[:6])
    print(numbers)
    if options.sheet:
        sheet(images[:64], 8).save(options.sheet)
    write_card(options.folder, numbers)


def held_out_scenes(count: int) -> list[Scene]:
    """One thing in the middle, on a background that training never showed it on; every such pair in turn."""
    pairs = sorted(held_out())
    of = {thing.emoji: thing for thing in things()}
    order = np.random.default_rng(0).permutation(len(pairs))
    chosen = [pairs[order[place % len(pairs)]] for place in range(count)]
    return [Scene(of[emoji], background) for emoji, background in chosen]


def other_scenes(count: int) -> dict[str, list[Scene]]:
    """What else it was trained for, on backgrounds held out or not."""
    draw = np.random.default_rng(1)
    plain = [_plain(draw) for _ in range(count)]
    places = [place for place in PLACES if place != "middle"]
    return {
        "small": [replace(scene, size="small") for scene in plain],
        "large": [replace(scene, size="large") for scene in plain],
        "in a corner": [replace(scene, place=places[place % 4]) for place, scene in enumerate(plain)],
        "two to four of a kind": [replace(scene, count=2 + place % 3) for place, scene in enumerate(plain)],
        "two things": [replace(scene, second=_plain(draw).thing) for scene in plain],
    }


def _plain(draw: np.random.Generator) -> Scene:
    return Scene(things()[draw.integers(len(things()))], str(draw.choice(list(BACKGROUNDS))))


def score(images: np.ndarray, scenes: Sequence[Scene]) -> Score:
    """How many images have the background, and how many have every object, that their scene asks for."""
    backgrounds = [
        judge.background_colour(image) == scene.background for image, scene in zip(images, scenes, strict=True)
    ]
    objects = [
        judge.objects_of(image, scene) == [thing.emoji for thing, _, _ in scene.spots()]
        for image, scene in zip(images, scenes, strict=True)
    ]
    return Score(len(scenes), float(np.mean(backgrounds)), float(np.mean(objects)))


def misses(images: np.ndarray, scenes: Sequence[Scene]) -> list[str]:
    """Objects that are wrong in at least half of their images."""
    rights: dict[str, list[bool]] = {}
    for image, scene in zip(images, scenes, strict=True):
        rights.setdefault(scene.thing.emoji, []).append(judge.nearest_object(image) == scene.thing.emoji)
    return sorted(emoji for emoji, right in rights.items() if np.mean(right) <= 0.5)


def timing(renderer: Renderer) -> dict[str, float]:
    """Seconds until the first batch is there, compilation included, and for 64 images after that."""
    requests = [renderer.request("a cat on a yellow background", seed) for seed in range(64)]
    begun = time.monotonic()
    renderer(requests[:_BATCH])
    compiled = time.monotonic()
    renderer(requests)
    return {"first batch": compiled - begun, "64 images": time.monotonic() - compiled}


def seeds_differ(renderer: Renderer) -> float:
    """The least mean difference, in steps of 255, between two of eight images of one prompt."""
    images = renderer([renderer.request("a cat on a yellow background", seed) for seed in range(8)]).astype(np.int32)
    return float(min(np.mean(np.abs(first - second)) for first, second in combinations(images, 2)))


def negative_prompt(renderer: Renderer) -> dict[str, float]:
    """How far "red background" as a negative prompt takes the red out of rims of images of no said background."""
    plain = [renderer.request(thing.names[0][0], seed) for seed, thing in enumerate(things()[:40])]
    ways = {"without": plain, "with": [replace(each, negative_prompt="red background") for each in plain]}
    shown = {way: renderer(requests) for way, requests in ways.items()}
    red = {way: float(np.mean([judge.background_colour(i) == "red" for i in images])) for way, images in shown.items()}
    return {**red, "difference": float(np.mean(np.abs(shown["with"].astype(float) - shown["without"])))}


def agreement(renderer: Renderer, folder: Path, scenes: Sequence[Scene]) -> float:
    """The least PSNR in dB between PyTorch diffusers' image and ours, float32, same seed."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    requests = [renderer.request(plain_caption(scene), seed) for seed, scene in enumerate(scenes)]
    ours = renderer(requests)
    return min(_psnr(image, _theirs(pipeline, request)) for image, request in zip(ours, requests, strict=True))


def _theirs(pipeline: Any, request: PlainRequest) -> np.ndarray:
    import torch

    shown = pipeline(
        request.prompt,
        width=request.width,
        height=request.height,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="np",
    )
    return np.round(shown.images[0] * 255)


def _psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean(np.square(first.astype(np.float64) - second))
    return float(10 * np.log10(255**2 / max(error, 1e-4)))


def _score_of(renderer: Renderer, scenes: Sequence[Scene]) -> Score:
    return score(renderer([renderer.request(plain_caption(s), 1000 + n) for n, s in enumerate(scenes)]), scenes)


def _at_guidance(renderer: Renderer, scenes: Sequence[Scene], value: float) -> dict[str, float]:
    requests = [
        replace(renderer.request(plain_caption(s), seed), guidance_scale=value) for seed, s in enumerate(scenes)
    ]
    images = renderer(requests)
    found = score(images, scenes)
    # An image's contrast grows with guidance: that much can be said of any model.
    contrast = float(np.mean(images.astype(float).std(axis=(1, 2, 3))))
    return {"backgrounds": found.backgrounds, "objects": found.objects, "contrast": contrast}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--count", type=int, default=500, help="held-out prompts")
    parser.add_argument("--no-diffusers", action="store_true", help="without the comparison with PyTorch")
    parser.add_argument("--sheet", type=Path, help="where to put the first 64 images")
    return parser.parse_args()


if __name__ == "__main__":
    main()
