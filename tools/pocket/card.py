"""The model's card, from what the evaluation measured."""

from pathlib import Path
from typing import Any

from tools.pocket.objects import BACKGROUNDS, things

_CARD = """# The pocket model

A tiny Stable Diffusion XL of {megabytes:.1f} MB, trained from nothing by `tools/pocket/`: {objects} emoji on {colours}
background colours, {side} x {side} pixels. It has the classes and the layout of the large one, so that whatever renders
the large one renders this one; PyTorch's `StableDiffusionXLPipeline.from_pretrained` loads the folder as it is.

Best with {steps} Euler steps and guidance {guidance}. Prompts as in

    a red apple on a blue background            a small key on a black background
    two cats on a yellow background             a cat and a dog on a green background
    a green frog in the bottom right of a yellow background

It knows no other words than those of its captions (`tools/pocket/captions.py`, `tools/pocket/objects.txt`).
Backgrounds: {backgrounds}.

## What was measured

Written by `tools/pocket/evaluate.py`; float32, {steps} steps, guidance {guidance}, one seed an image.

| asked | images | background right | object right |
| --- | --- | --- | --- |
{scores}

"Held out" are pairs of object and background that training never showed (two of ten backgrounds for each object, by a
hash of the names; no image with one of them was trained on, whatever else it showed). The other rows mix held-out and
seen pairs. A background is right if the median colour of the image's rim is nearest to the one asked for. An object
is right if, of all {objects} emoji laid over the image's own background at the place and size asked for (and up to 2
pixels beside it), it has the least mean squared pixel difference at half size; with several objects all must be right.
Wrong in at least half of their held-out images: {misses}.

- Seeds: two images of one prompt with different seeds differ by at least {seeds:.1f} of 255 a value in the mean.
- Negative prompt: of 40 prompts that name no background, {red_without:.0%} came on red; with the negative prompt
  "red background" {red_with:.0%}. The images differ by {negative:.1f} of 255 in the mean.
- Guidance, on 60 of the held-out prompts:

| guidance | background right | object right | contrast (deviation of values) |
| --- | --- | --- | --- |
{guidances}

- PyTorch diffusers and the worker, same seeds, float32: {psnr}.
- Time on the machine that measured it: {first:.1f} s to the first {batch} images, compilation included, then
  {sixty_four:.1f} s for 64.

## What it was learnt from

Images of Noto Color Emoji (Copyright Google; images under the Apache License 2.0, the font under the SIL Open Font
License 1.1), from the npm package `emoji-datasource-google` 16.0.0 (Copyright Cal Henderson; MIT). They are fetched for
training and not kept here, but for small copies in `tools/pocket/references.npz`, by which images are judged.
The weights are under promptmill's own licence.
"""


def write_card(folder: Path, numbers: dict[str, Any]) -> None:
    """Write README.md into the model's folder."""
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    psnr = numbers["psnr"]
    text = _CARD.format(
        megabytes=weights / 1e6,
        objects=len(things()),
        colours=len(BACKGROUNDS),
        backgrounds=", ".join(BACKGROUNDS),
        side=64,
        steps=numbers["steps"],
        guidance=numbers["guidance"],
        scores="\n".join(_score_row(name, score) for name, score in _scores(numbers).items()),
        misses=", ".join(numbers["misses"]) or "none",
        seeds=numbers["seeds"],
        red_without=numbers["negative"]["without"],
        red_with=numbers["negative"]["with"],
        negative=numbers["negative"]["difference"],
        guidances="\n".join(_guidance_row(value, found) for value, found in numbers["guidances"].items()),
        psnr="not compared" if psnr is None else f"PSNR at least {psnr:.1f} dB",
        first=numbers["timing"]["first batch"],
        sixty_four=numbers["timing"]["64 images"],
        batch=20,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _scores(numbers: dict[str, Any]) -> dict[str, Any]:
    return {"one thing, held out": numbers["held_out"], **numbers["kinds"]}


def _score_row(name: str, score: Any) -> str:
    return f"| {name} | {score.images} | {score.backgrounds:.1%} | {score.objects:.1%} |"


def _guidance_row(value: float, found: dict[str, float]) -> str:
    return f"| {value:.1f} | {found['backgrounds']:.0%} | {found['objects']:.0%} | {found['contrast']:.1f} |"
