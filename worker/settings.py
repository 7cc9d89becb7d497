"""What a worker is told, one row per setting. `promptmill worker` makes its flags of the rows.

Each spelling of a flag is also a variable, for `celery -A promptmill.worker.app worker` too, and a key of
promptmill.toml: `--drain`, PROMPTMILL_DRAIN, `drain`. docs/settings.md is made from the rows (a test compares).
"""

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from promptmill.producer.broker import DEFAULT_URL
from promptmill.producer.broker_url import BROKER_HELP
from promptmill.producer.errors import PromptmillError
from promptmill.worker.quantization import FORMATS, UNQUANTIZED

PREFIX = "PROMPTMILL_"

ON_UNSAFE = ("black", "blur", "keep", "fail")
"""What can become of an image that a check flagged: see worker/post_processing.py, and docs/safety.md for users."""

MARKS = ("xmp", "watermark", "c2pa", "none")
"""Marks of images that a model made: producer/marks.py, worker/watermark.py, worker/credentials.py; for users
docs/provenance.md."""

LOG_FORMATS = ("text", "json")

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

NEAR = 0.8
"""How alike (difflib's ratio) an unknown variable is to one of the worker's when it was surely meant for it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A row: all that is to be known of a setting, beside its type and its default.

    `unset` says what holds where it is not given. `low` and `high` bound a number. `several`: choices with commas.
    `checks`: it says how images are looked at and marked, so `render` has it too. `internal`: a variable that
    promptmill sets itself, and no flag.
    """

    flags: tuple[str, ...]
    kind: Literal["text", "whole", "number", "truth"]
    help: str
    unset: str
    choices: tuple[str, ...] = ()
    several: bool = False
    low: float | None = None
    high: float | None = None
    metavar: str | None = None
    checks: bool = False
    internal: bool = False

    @property
    def variables(self) -> list[str]:
        """The environment variables, by the flag's long spellings."""
        return [variable_of(flag) for flag in self.flags if flag.startswith("--")]

    def read(self, text: str) -> Any:
        """The value that a variable's text means. Raises ValueError with what was expected and got."""
        try:
            value = _READ[self.kind](text)
        except ValueError as error:
            expected = "true or false" if self.kind == "truth" else "a number"
            raise ValueError(f"must be {expected}, got {text!r}") from error
        value = next((choice for choice in self.choices if choice.lower() == text.lower()), value)
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raises ValueError with what was expected and got."""
        values = value.split(",") if self.several else [value]
        if self.choices and not set(values) <= set(self.choices):
            raise ValueError(f"must be {' or '.join(self.choices)}, got {value!r}")
        if self.low is not None and not value >= self.low:
            raise ValueError(f"must be at least {self.low:g}, got {value}")
        if self.high is not None and not value <= self.high:
            raise ValueError(f"must be at most {self.high:g}, got {value}")


def variable_of(flag: str) -> str:
    """The environment variable that says what a flag says."""
    return PREFIX + flag.lstrip("-").replace("-", "_").upper()


def _truth(text: str) -> bool:
    answers = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in answers:
        raise ValueError(text)
    return answers[text.lower()]


_READ: dict[str, Callable[[str], Any]] = {"text": str, "whole": int, "number": float, "truth": _truth}


def _row(
    default: Any, *flags: str, kind: str = "text", help: str, unset: str, secret: bool = False, **more: Any
) -> Any:
    """`secret`: it may hold a password, and `celery inspect conf` and Flower show the settings' repr."""
    row = Setting(flags, kind, help, unset, **more)  # type: ignore[arg-type]
    return field(default=default, repr=not secret, metadata={"row": row})


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker claims, renders and stops. Raises PromptmillError for a value that cannot be."""

    broker: str = _row(
        DEFAULT_URL,
        "--broker",
        metavar="URL",
        help=BROKER_HELP,
        secret=True,
        unset=DEFAULT_URL,
    )
    model: str | None = _row(
        None,
        "--model",
        help="Load this model, and compile it for its default size, before claiming any job.",
        unset="models are loaded when jobs ask for them",
    )
    dtype: str | None = _row(
        None,
        "--dtype",
        choices=("float32", "bfloat16"),
        help="dtype of the UNet and the text encoders.",
        unset="bfloat16 on TPU and GPU, float32 on CPU",
    )
    vae_dtype: str | None = _row(
        None,
        "--vae-dtype",
        choices=("float32", "bfloat16"),
        help="dtype of the VAE's decoder; its first and last layers stay in float32.",
        unset="float32 where the model says force_upcast, as SDXL's own does, else the dtype",
    )
    quantize: str = _row(
        UNQUANTIZED,
        "--quantize",
        choices=(UNQUANTIZED, *FORMATS),
        help="Keep the UNet's large kernels in one byte per number; images change a little.",
        unset="none",
    )
    per_device_batch: int = _row(
        1, "--per-device-batch", kind="whole", low=1, high=64, help="Images per device and batch.", unset="1"
    )
    batches_in_flight: int = _row(
        6,
        "--batches-in-flight",
        kind="whole",
        low=1,
        high=16,
        help="Batches held at once: at most three on the device, the others being encoded and uploaded.",
        unset="6",
    )
    models_kept: int = _row(
        1, "--models-kept", kind="whole", low=1, help="Models whose weights stay on the devices at once.", unset="1"
    )
    shapes_kept: int = _row(
        16,
        "--shapes-kept",
        kind="whole",
        low=1,
        help="Compiled programs in memory at once; others come back from the cache on disk.",
        unset="16",
    )
    unloadable_after_s: float = _row(
        86400.0,
        "--unloadable-after",
        "--unloadable-after-s",
        kind="number",
        low=0,
        help="Seconds after which jobs fail whose model no worker can load or compile. 0: never.",
        unset="86400, a day",
    )
    safety_checker: str | None = _row(
        None,
        "--safety-checker",
        metavar="MODEL",
        checks=True,
        help="Check images: a folder or a hub id, as CompVis/stable-diffusion-safety-checker.",
        unset="no check",
    )
    image_check: str | None = _row(
        None,
        "--image-check",
        metavar="MODULE:FUNCTION",
        checks=True,
        help="Your own check of the pixels; several with commas between.",
        unset="none",
    )
    on_unsafe: str = _row(
        "black",
        "--on-unsafe",
        choices=ON_UNSAFE,
        checks=True,
        help="What to do with an image that a check flags.",
        unset="black",
    )
    watermark: bool = _row(
        False, "--watermark", kind="truth", checks=True, help="Embed SDXL's invisible watermark.", unset="no"
    )
    marks: str = _row(
        "xmp",
        "--marks",
        choices=MARKS,
        several=True,
        metavar="NAME,...",
        checks=True,
        help="Marks that say that a model made the image.",
        unset="xmp",
    )
    c2pa_certificate: str | None = _row(
        None,
        "--c2pa-certificate",
        metavar="FILE",
        checks=True,
        help="For --marks c2pa: your certificate chain, as PEM.",
        unset="none",
    )
    c2pa_key: str | None = _row(
        None,
        "--c2pa-key",
        metavar="FILE",
        checks=True,
        help="For --marks c2pa: the certificate's private key, as PEM.",
        unset="none",
    )
    c2pa_timestamp: str | None = _row(
        None,
        "--c2pa-timestamp",
        metavar="URL",
        checks=True,
        help="For --marks c2pa: a time stamp authority (RFC 3161), asked for each image.",
        unset="no time stamp",
    )
    lease_s: float = _row(
        30.0,
        "--lease",
        "--lease-s",
        kind="number",
        low=1,
        help="Seconds after which the jobs of a dead worker are claimed by others.",
        unset="30",
    )
    drain_s: float = _row(
        30.0,
        "--drain",
        "--drain-s",
        kind="number",
        low=0,
        help="Seconds that a stopping worker has to finish its jobs; it gives back the rest.",
        unset="30",
    )
    hang_timeout_s: float = _row(
        1800.0,
        "--hang-timeout",
        "--hang-timeout-s",
        kind="number",
        low=0,
        help="Seconds after which a batch on the device is given up, and the worker restarts itself. 0: never.",
        unset="1800",
    )
    log_format: str = _row(
        "text",
        "--log-format",
        choices=LOG_FORMATS,
        help="Format of the log; json: one object per line.",
        unset="text",
    )
    metrics_port: int | None = _row(
        None,
        "--metrics-port",
        kind="whole",
        low=0,
        high=65535,
        help="Port to serve /metrics, /healthz and /readyz on. 0: any free one, named in the log.",
        unset="none",
    )
    metrics_address: str = _row(
        "0.0.0.0",
        "--metrics-address",
        help="Address to serve metrics on; 127.0.0.1 for this host alone.",
        unset="0.0.0.0",
    )
    traces: bool = _row(
        False,
        "--traces",
        kind="truth",
        help="Send each job as an OpenTelemetry trace, to where OTEL_EXPORTER_OTLP_ENDPOINT says.",
        unset="no traces",
    )
    concurrency: int = _row(
        8, "--concurrency", "-c", kind="whole", low=1, help="Threads that encode and upload.", unset="8"
    )
    hostname: str | None = _row(
        None, "--hostname", "-n", help="The worker's name, Celery's node name.", unset="promptmill-PID@HOST"
    )
    loglevel: str = _row(
        "INFO", "--loglevel", "-l", choices=LOG_LEVELS, help="Lowest level that is logged.", unset="INFO"
    )
    parent_pid: int = _row(
        0,
        "--parent-pid",
        kind="whole",
        internal=True,
        help="The process that this worker serves; when it is gone, the worker stops.",
        unset="none",
    )

    def __post_init__(self) -> None:
        for name, row in SETTINGS.items():
            try:
                if getattr(self, name) is not None:
                    row.check(getattr(self, name))
            except ValueError as error:
                raise PromptmillError(f"{row.variables[0]}: {error}") from error

    @property
    def layers(self) -> frozenset[str]:
        """The marks of images, by their names in MARKS."""
        return frozenset(self.marks.split(",")) - {"none"} | ({"watermark"} if self.watermark else set())

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "WorkerSettings":
        """Of a variable's spellings the first that is set counts. Raises PromptmillError for what cannot be read."""
        found: dict[str, Any] = {}
        for name, row in SETTINGS.items():
            for variable in row.variables:
                if environ.get(variable) and name not in found:
                    try:
                        found[name] = row.read(environ[variable])
                    except ValueError as error:
                        raise PromptmillError(f"{variable}: {error}") from error
        return cls(**found)


SETTINGS: dict[str, Setting] = {one.name: one.metadata["row"] for one in dataclasses.fields(WorkerSettings)}


def slips_in(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that is nearly a worker's; submitters have others, which a worker does not know."""
    known = [variable.removeprefix(PREFIX) for row in SETTINGS.values() for variable in row.variables]
    found = []
    for name in environ:
        own = name.removeprefix(PREFIX)
        near = difflib.get_close_matches(own, known, 1, NEAR) if name.startswith(PREFIX) and own not in known else None
        if near:
            found.append(f"{name} is not a setting of a worker; did you mean {PREFIX}{near[0]}?")
    return found
