"""A row of a prompt file -> its jobs: flags' defaults under it, expanded, the model's defaults under all, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from promptmill.producer.errors import JobError
from promptmill.producer.families.mismatches import Suspicions
from promptmill.producer.families.presets import over
from promptmill.producer.fields import FIELD_NAMES, MAX_SEED
from promptmill.producer.job import Job, canonical_names
from promptmill.producer.models import DEFAULT_MODEL, model_defaults, resolve_model
from promptmill.producer.plan_lines import MOST_KINDS, Kind, drawn_json
from promptmill.producer.prompts.columns import IMAGES
from promptmill.producer.prompts.doubts import Doubts
from promptmill.producer.prompts.expand import MAX_JOBS_A_ROW, TEXTS, Expander, Expansion
from promptmill.producer.prompts.invisible import bare
from promptmill.producer.prompts.syntax import has_syntax
from promptmill.producer.prompts.templates import Drawn
from promptmill.producer.values import MAX_PROMPT_CHARS, check_text

RowJob = tuple[Kind, str, int, str]
"""A checked job: its kind, prompt and seed, and how its texts were drawn (`drawn_json`)."""

_OWN = frozenset({"prompt", "seed"})  # of each job, whatever its kind
_NAMES = frozenset(FIELD_NAMES)


class Rows:
    """The rows of one run, one after the other.

    `preset` names what a kind of checkpoint needs: it stands under flags and rows, over the model's
    own. Raises JobError for a wrong flag, which is so said once and not for each row; ModelNameError, ExpansionError.
    """

    def __init__(self, defaults: Mapping[str, Any], preset: str | None, expansion: Expansion) -> None:
        self.suspicions = Suspicions()
        self.doubts = Doubts(alternatives=expansion.unasked)
        self.shapes: dict[str, int] = {}
        self.common: dict[str, Any] | None = None
        self._preset = preset
        self._defaults = {name: value for name, value in canonical_names(defaults).items() if value is not None}
        self._expander = Expander(expansion)
        self._one_each = not expansion.matrix
        self._images = expansion.images_per_prompt
        self._seed_is_index = expansion.run_seed == 0
        self._models: dict[str, dict[str, Any]] = {}
        self._kinds: dict[str, Kind] = {}
        self._check_flags(expansion)
        self._usual: Kind | None = None  # of rows that have a prompt alone, once one was there
        self._plain = expansion.plain
        self._has_usual = (
            self._images == 1
            and self._one_each
            and self._seed_is_index
            and not _OWN & self._defaults.keys()
            and self._expander.trivial(self._defaults)
        )

    def jobs(self, fields: Mapping[str, Any], index: int, where: str, unused: Sequence[str] = ()) -> Sequence[RowJob]:
        """The jobs that a row means, the first of them at `index` of the run; `where` is its file and line.

        `unused` are the row's settings that mean nothing here. Raises JobError, ModelNameError.
        """
        self.doubts.where = where
        if unused:
            self.doubts.see_unused(unused)
        is_usual = self._has_usual and len(fields) == 1 and "prompt" in fields
        if is_usual and self._usual and (job := self._at_once(self._usual, fields["prompt"], index)):
            return (job,)
        images = self._images
        if IMAGES in fields:
            fields = dict(fields)
            images = _count_images(fields.pop(IMAGES))
        own = fields if _NAMES.issuperset(fields) else canonical_names(fields)
        said = {**self._defaults, **own} if self._defaults else dict(own)
        if images == 1 and self._one_each and (self._seed_is_index or "seed" in said) and self._expander.trivial(said):
            said.setdefault("seed", index)
            job = self._checked(said)
            self._usual = job[0] if is_usual else self._usual
            return (job,)
        return [self._drawn(one) for one in self._expander(said, index, images)]

    def _at_once(self, kind: Kind, prompt: Any, seed: int) -> RowJob | None:
        """The job of a row that has a prompt alone, which is most rows: a quarter of the time of the long way.

        None where the long way has to say what is wrong with it, or what it means.
        """
        if type(prompt) is not str or (not self._plain and has_syntax(prompt)):
            return None
        prompt = bare(prompt)
        if not _sound(prompt, seed):
            return None
        self.doubts.see(prompt, kind.windows, kind.model)
        return kind, prompt, seed, ""

    def warnings(self, preset: str | None) -> list[str]:
        """A sentence for each thing that does not suit a model, and for each kind of doubtful prompt."""
        return [*self.suspicions.sentences(preset), *self.doubts.sentences()]

    def exactly(self, job: Job, where: str) -> RowJob:
        """A job that is complete already, as it is."""
        self.doubts.where = where
        kind = self._kind_of(job.fields(), job)
        self.doubts.see(job.prompt, kind.windows, kind.model)
        return kind, job.prompt, job.seed, ""

    def _drawn(self, said: dict[str, Any]) -> RowJob:
        drawn = {name: text for name, text in said.items() if isinstance(text, Drawn)}
        return self._checked({**said, **{name: str(text) for name, text in drawn.items()}}, drawn_json(drawn))

    def _checked(self, said: dict[str, Any], drawn: str = "") -> RowJob:
        prompt, seed = said.pop("prompt", None), said.pop("seed")
        prompt = bare(prompt) if type(prompt) is str else prompt
        key = repr(said) if said else ""
        kind = self._kinds.get(key)
        if kind is None or not _sound(prompt, seed):
            given = {"seed": seed} if prompt is None else {"prompt": prompt, "seed": seed}
            job = Job.from_fields({**self._complete(_bare_texts(said)), **given})
            prompt, seed = job.prompt, job.seed
            kind = kind or self._new_kind(key, job)
        self.doubts.see(prompt, kind.windows, kind.model)
        return kind, prompt, seed, drawn

    def _kind_of(self, fields: Mapping[str, Any], job: Job) -> Kind:
        key = "=" + repr([item for item in fields.items() if item[0] not in _OWN])  # no other key begins so
        return self._kinds.get(key) or self._new_kind(key, job)

    def _new_kind(self, key: str, job: Job) -> Kind:
        if len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
        number = self.shapes.setdefault(job.shape.key, len(self.shapes))
        kind = self._kinds[key] = Kind(job, number)
        self.suspicions.see(job)
        self.doubts.see_others(job)
        if self.common is None:
            self.common = dict(kind.fields)
        for name in [name for name, value in self.common.items() if kind.fields.get(name) != value]:
            del self.common[name]
        return kind

    def _complete(self, said: Mapping[str, Any]) -> dict[str, Any]:
        said = dict(said)
        if isinstance(said.get("refiner"), str):
            said["refiner"] = resolve_model(said["refiner"])
        return over(self._of_model(said.pop("model", DEFAULT_MODEL)), said)

    def _of_model(self, name: Any) -> dict[str, Any]:
        if not isinstance(name, str):
            raise JobError("model", f"must be text, got {name!r}")
        if name not in self._models:
            model = resolve_model(name)
            self._models[name] = {**model_defaults(model, self._preset).job_fields(), "model": model}
        return self._models[name]

    def _check_flags(self, expansion: Expansion) -> None:
        Job.from_fields({"prompt": "any", **self._complete(self._defaults)})
        for name, values in expansion.matrix.items():
            for value in values:
                Job.from_fields({"prompt": "any", **self._complete({**self._defaults, name: value})})


def _count_images(said: Any) -> int:
    """A row's number of images. Raises JobError."""
    count = int(said) if isinstance(said, float) and said.is_integer() else said
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_JOBS_A_ROW:
        raise JobError(IMAGES, f"must be a whole number from 1 to {MAX_JOBS_A_ROW}, got {str(said)[:40]!r}")
    return count


def _bare_texts(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: bare(value) if name in TEXTS and type(value) is str else value for name, value in said.items()}


def _sound(prompt: Any, seed: Any) -> bool:
    """Whether prompt and seed are what a job takes, at a glance; others are checked by the job itself."""
    if type(prompt) is not str or type(seed) is not int or not 0 <= seed <= MAX_SEED:
        return False
    if not prompt or prompt.isspace() or len(prompt) > MAX_PROMPT_CHARS:
        return False
    return prompt.isprintable() or bool(check_text("prompt", prompt))
