"""One side of a comparison, in a process of its own: ours, or one of PyTorch's (SIDES).

    python -m benchmarks.peers '{"side": "ours", "folder": ..., "dtype": "bfloat16", "size": 1024, "steps": 20, ...}'

It loads, compiles and renders once, and says how long that took as a line of JSON. Then each line on stdin has it
render one batch and say the seconds; at the end of stdin it says the peak of the device's memory. With `"save": PATH`
it renders once for latents and once for pixels, into that .npz file, and ends. A batch is timed from its prompts to
uint8 pixels on the host. With `"what": "unet"` or `"vae"` it calls that network alone, on `"inputs"`, an .npz file of
benchmarks.full_size's inputs: of ours, what each step computes. What PyTorch's libraries print goes to stderr.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

PROMPT = "a cat in the rain, oil painting"
NEGATIVE = "blurry, low quality"
GUIDANCE = 5.0

SIDES = {
    "ours": "ours",
    "eager": "PyTorch eager",
    "channels_last": "PyTorch, channels last",
    "fused": "PyTorch, channels last, fused QKV",
    "compiled": "torch.compile",
    "compiled_fused": "torch.compile, fused QKV",
}
"""PyTorch attends by scaled_dot_product_attention in all of them; what is compiled has its channels last too."""


def main() -> None:
    settings = json.loads(sys.argv[1])
    # Lines of ours are the only ones on stdout.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started = time.perf_counter()
    peer = KINDS[settings.get("what", "image") == "image", settings["side"] == "ours"](settings)
    loaded = time.perf_counter()
    if "save" in settings:
        peer.save(Path(settings["save"]))
        print(json.dumps({"saved": settings["save"], "device": peer.device}), file=answers)
        return
    peer.compile()
    if "output" in settings:
        np.save(settings["output"], peer.render())
    compiled = time.perf_counter()
    peer.render()
    first = {"load_s": loaded - started, "compile_s": compiled - loaded, "first_s": time.perf_counter() - compiled}
    print(json.dumps({**first, "device": peer.device}), file=answers)
    for _ in sys.stdin:
        started = time.perf_counter()
        peer.render()
        print(json.dumps({"s": time.perf_counter() - started}), file=answers)
    print(json.dumps({"peak": peer.peak_memory()}), file=answers)


class Ours:
    """`promptmill.worker.sdxl.program`, on the first device alone."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import jax

        from promptmill.worker.sdxl.program import Model

        self.settings = settings
        devices = jax.local_devices()[:1]
        self.device = devices[0].device_kind
        self.model = Model.load(Path(settings["folder"]), devices=devices, dtype=jax.numpy.dtype(settings["dtype"]))

    def compile(self) -> None:
        self.program = self._program()

    def _program(self, **more: Any) -> Any:
        size, batch = self.settings["size"], self.settings["batch"]
        return self.model.compile(width=size, height=size, guided=True, per_device_batch=batch, **more)

    def _requests(self) -> list[Any]:
        from promptmill.worker.sdxl.requests import PlainRequest

        settings: dict[str, Any] = {
            "prompt": PROMPT,
            "negative_prompt": NEGATIVE,
            "num_inference_steps": self.settings["steps"],
            "guidance_scale": GUIDANCE,
            "width": self.settings["size"],
            "height": self.settings["size"],
        }
        return [PlainRequest(**settings, seed=seed) for seed in range(self.settings["batch"])]

    def render(self) -> np.ndarray:
        from promptmill.worker.program import fetch

        requests = self._requests()
        return fetch(self.program.run(self.program.prepare(requests)), len(requests))[0]

    def save(self, path: Path) -> None:
        from promptmill.worker.sdxl.generate import Stage

        program = self._program(stage=Stage(end="latents"))
        latents = np.asarray(program.run(program.prepare(self._requests())))
        self.compile()
        np.savez(path, latents=latents, pixels=self.render())

    def peak_memory(self) -> int | None:
        import jax

        stats = jax.local_devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")


class PyTorch:
    """`StableDiffusionXLPipeline`, as its documentation advises to speed it up, or as it comes (`eager`)."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

        self.settings, self.torch = settings, torch
        # float32 means float32 here: TF32 keeps 10 bits of 23.
        torch.backends.cuda.matmul.allow_tf32 = settings["dtype"] != "float32"
        torch.backends.cudnn.allow_tf32 = settings["dtype"] != "float32"
        self.where = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.cuda.get_device_name() if self.where == "cuda" else "cpu"
        dtype = getattr(torch, settings["dtype"])
        pipeline: Any = StableDiffusionXLPipeline.from_pretrained(
            settings["folder"], torch_dtype=dtype, local_files_only=True, add_watermarker=False
        )
        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(self.where)
        prepare(torch, settings["side"], pipeline.unet, pipeline.vae)

    def compile(self) -> None:
        """With the compiler what is compiled is compiled at the first call, which `compile_s` therefore holds."""
        if not self.settings["side"].startswith("compiled"):
            return
        compiled = {"mode": self.settings["mode"], "fullgraph": True}
        self.pipeline.unet = self.torch.compile(self.pipeline.unet, **compiled)
        self.pipeline.vae.decode = self.torch.compile(self.pipeline.vae.decode, **compiled)
        self.render()

    def render(self) -> np.ndarray:
        images = self._run("pt")
        pixels: np.ndarray = (images * 255).round().to(self.torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return pixels

    def save(self, path: Path) -> None:
        latents = self._run("latent").float().permute(0, 2, 3, 1).cpu().numpy()
        np.savez(path, latents=latents, pixels=self.render())

    def _run(self, output_type: str) -> Any:
        batch = self.settings["batch"]
        return self.pipeline(
            [PROMPT] * batch,
            negative_prompt=[NEGATIVE] * batch,
            num_inference_steps=self.settings["steps"],
            guidance_scale=GUIDANCE,
            width=self.settings["size"],
            height=self.settings["size"],
            generator=[self.torch.Generator().manual_seed(seed) for seed in range(batch)],
            output_type=output_type,
        ).images

    def peak_memory(self) -> int | None:
        return self.torch.cuda.max_memory_allocated() if self.where == "cuda" else None


def prepare(torch: Any, side: str, *networks: Any) -> None:
    """What a side does to PyTorch's networks once they are loaded."""
    for network in networks:
        if side != "eager":
            network.to(memory_format=torch.channels_last)
        if side in ("fused", "compiled_fused"):
            network.fuse_qkv_projections()


class OurPart:
    """One of our networks alone, on the first device."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import jax
        import jax.numpy as jnp

        from benchmarks.full_size import _float_type, _our_network
        from promptmill.worker.checkpoint.weights import load_weights
        from promptmill.worker.nn.layers import with_prepared_kernels
        from promptmill.worker.nn.vae import IN_FLOAT32

        self.device = jax.devices()[0].device_kind
        folder, dtype = Path(settings["folder"]), settings["dtype"]
        self.part = part = settings["what"]
        build, self._call = _our_network(folder, part)
        where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        kept = IN_FLOAT32 if part == "vae" else ()
        loaded = load_weights(folder / part, build, dtype=jnp.dtype(dtype), sharding=where, in_float32=kept)
        self._graph, self._state = with_prepared_kernels(*loaded, partial(jax.device_put, device=where))
        given = np.load(settings["inputs"])
        self._inputs = {name: jnp.asarray(value, _float_type(value, dtype)) for name, value in given.items()}

    def compile(self) -> None:
        import jax
        from flax import nnx

        graph, call = self._graph, self._call
        if self.part == "unet":
            self._inputs = jax.jit(lambda state, inputs: once_per_image(nnx.merge(graph, state), inputs))(
                self._state, self._inputs
            )
            call = one_step
        run = jax.jit(lambda state, inputs: call(nnx.merge(graph, state), inputs))
        self._compiled = run.lower(self._state, self._inputs).compile()

    def render(self) -> np.ndarray:
        return np.asarray(self._compiled(self._state, self._inputs), np.float32)

    def peak_memory(self) -> int | None:
        return None


def once_per_image(unet: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What `generate` computes outside of its loop over steps; `one_step` is what it does in there."""
    given = unet.condition(*(inputs[name] for name in ("context", "pooled", "time_ids")))
    return {**inputs, "given": given}


def one_step(unet: Any, inputs: dict[str, Any]) -> Any:
    return unet.denoise(inputs["latents"], inputs["timestep"], inputs["given"])


class PyTorchPart:
    """One of PyTorch's networks alone."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch

        from benchmarks.full_size import _their_network

        self.settings, self.torch, self.part = settings, torch, settings["what"]
        self.where = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.cuda.get_device_name() if self.where == "cuda" else "cpu"
        dtype = getattr(torch, settings["dtype"])
        load = _their_network(self.part, dtype)
        self.network = load(Path(settings["folder"]) / self.part, local_files_only=True).eval().to(self.where)
        prepare(torch, settings["side"], self.network)
        given = {name: torch.from_numpy(value) for name, value in np.load(settings["inputs"]).items()}
        self.inputs = {
            name: value.to(self.where, dtype if value.is_floating_point() else None) for name, value in given.items()
        }

    def compile(self) -> None:
        if self.settings["side"].startswith("compiled"):
            if self.part == "vae":
                self.network.decode = self.torch.compile(self.network.decode, mode=self.settings["mode"])
            else:
                self.network = self.torch.compile(self.network, mode=self.settings["mode"])
            self.render()

    def render(self) -> np.ndarray:
        from benchmarks.full_size import _their_call

        with self.torch.no_grad():
            output: np.ndarray = _their_call(self.network, self.part, self.inputs).float().cpu().numpy()
            return output

    def peak_memory(self) -> int | None:
        return self.torch.cuda.max_memory_allocated() if self.where == "cuda" else None


KINDS: dict[tuple[bool, bool], Any] = {
    (True, True): Ours,
    (True, False): PyTorch,
    (False, True): OurPart,
    (False, False): PyTorchPart,
}
"""By whether whole images are rendered, and whether by us."""


class Peer:
    """The other end of a peer's lines. `command` is another program that speaks them."""

    first: dict[str, Any]

    def __init__(self, settings: dict[str, Any], command: Sequence[str] | None = None) -> None:
        environ = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if settings["dtype"] == "float32":
            environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
        if "xla_flags" in settings:
            environ["XLA_FLAGS"] = settings["xla_flags"]
        command = [*(command or [sys.executable, "-m", "benchmarks.peers"]), json.dumps(settings)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, bufsize=1
        )
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def answer(self) -> dict[str, Any]:
        """Its next line; RuntimeError where it ended without one, for the reason that it wrote to stderr."""
        assert self._stdout is not None
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"a peer ended with status {self._process.wait()}; its last words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self) -> dict[str, Any]:
        """Have it render one batch."""
        assert self._stdin is not None
        self._stdin.write("go\n")
        self._stdin.flush()
        return self.answer()

    def end(self) -> dict[str, Any]:
        """Its peak of memory; then it is gone."""
        assert self._stdin is not None
        self._stdin.close()
        answer = self.answer()
        self._process.wait()
        return answer

    def stop(self) -> None:
        """However it is."""
        self._process.kill()
        self._process.wait()


if __name__ == "__main__":
    main()
