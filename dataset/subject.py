"""A run as `verify` and `repair` look at it: its plan, and the manifest where there is one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptmill.dataset.findings import LedgerFacts
from promptmill.dataset.stored_manifest import StoredManifest
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import page_names


@dataclass(frozen=True)
class Subject:
    """`sealed` are the digests in `_SUCCESS` by object's name, none where it is not packed, or cannot be read."""

    output: Output
    plan: Plan
    run: dict[str, Any]
    manifest: StoredManifest | None
    ledger: LedgerFacts | None = None
    sealed: Mapping[str, str] = field(default_factory=dict)

    def page_of(self, index: int) -> str:
        """The file of the plan that has this index."""
        return page_names(self.run)[index // self.plan.page_jobs]

    def failed(self, index: int) -> bool:
        """Whether Redis knows why the job has no image."""
        return self.ledger is not None and index in self.ledger.failures
