"""Write `references/*.npz` from PyTorch: `python -m tests.parity.make_references`. Needs the extra `import`."""

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np

from promptmill.worker.sdxl.tiny import write_tiny_random
from tests.parity import cases, linear, schedulers, theirs


def main() -> None:
    """Overwrite all references with what the installed torch and diffusers compute."""
    cases.REFERENCES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_tiny_random(Path(folder) / "tiny-random")
        quiet = cases.write_quiet(Path(folder) / "quiet", tiny)
        pipeline = theirs.load(tiny)
        save("parts", theirs.parts(pipeline))
        save("quiet", theirs.parts(theirs.load(quiet)))
        save("images", {name: theirs.image(pipeline, request) for name, request in cases.IMAGES.items()})
    save("noise", {name: theirs.noise(*case) for name, case in cases.NOISE.items()})
    save("trajectories", {name: theirs.trajectory(case) for name, case in cases.SCHEDULER_CONFIGS.items()})
    save("samplers", samplers())
    save(
        "schedules",
        {
            f"{name}/{steps}/{what}": values
            for name, settings in cases.SCHEDULER_CONFIGS.items()
            for steps in cases.STEP_COUNTS
            if steps < 100
            for what, values in theirs.schedule(settings, steps).items()
        },
    )


def samplers() -> dict[str, np.ndarray]:
    """Every sampler's latents, and the noise that those were given which draw some at each step."""
    trajectories = {
        name: schedulers.trajectory(schedulers.build(sampling.sampler, settings), sampling, linear.NOISE)
        for name, (sampling, settings) in linear.STORED.items()
    }
    return {"draws": np.stack(list(islice(schedulers.draws(0, linear.SHAPE), 12))), **trajectories}


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(cases.REFERENCES / f"{name}.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
