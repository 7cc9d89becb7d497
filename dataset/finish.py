"""The whole of what makes a dataset of a run: manifest, shards, and the seal over both."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from promptmill.dataset.beside import scratch_beside
from promptmill.dataset.card import CARD, card_text, licence_in
from promptmill.dataset.croissant import CROISSANT, croissant_text
from promptmill.dataset.failures import put_failures
from promptmill.dataset.manifest import MANIFEST, Groups
from promptmill.dataset.options import SHARD_SIZE, PackOptions
from promptmill.dataset.pack import RECORD, SHARDS_JSON, Shard, check_options, pack
from promptmill.dataset.packed_manifest import UnfinishedError, file_sha256, place_manifest
from promptmill.dataset.rows import Rows
from promptmill.dataset.scores import SCORES, Scores
from promptmill.dataset.seal import write_seal
from promptmill.dataset.stored_manifest import ManifestError, StoredManifest
from promptmill.dataset.summary import summarize
from promptmill.dataset.transcoder import Transcoder
from promptmill.producer.layout import CONTACT_SHEET, FAILURES, REJECTS, RUN_JSON
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import page_names, read_run

__all__ = ["UnfinishedError", "finish"]


def finish(
    output: Output,
    plan: Plan,
    failures: Mapping[int, str],
    *,
    options: PackOptions | None = None,
    shard_size: int | None = None,
    partial: bool = False,
    licence: str = "unknown",
    scores: Scores | None = None,
    draw: Callable[[], object] = lambda: None,
    look: Callable[[], Groups | None] = lambda: None,
    help_pack: Callable[[Rows, bool], object] = lambda rows, renew: None,
    progress: Callable[[Shard], None] = lambda shard: None,
) -> dict[str, int]:
    """Write manifest, shards, card and seal of a run; return how many rows have each state. What is there stays.

    `shard_size` alone is short for options of that size; `licence` is the card's; `draw` may put a contact sheet there
    for it, `look` have others look at the images, and `help_pack` have others put shards there. `scores` become columns
    of the manifest; without them, those of before stay. A run that was packed with less is packed on
    (packed_manifest.py). Raises UnfinishedError where images are still to come, unless it may be `partial`; PackError
    for options that cannot be; OutputConflict where those of other images, or other shards, lie there;
    ImageChangedError, ScoresError, OutputError, PlanError.
    """
    as_rendered = PackOptions(shard_size=SHARD_SIZE if shard_size is None else shard_size)
    chosen = options or replace(as_rendered, image_format=plan.encoding.format)
    Transcoder(chosen)  # else refused after the manifest
    check_options(output, chosen)
    ours: list[bool] = []
    with scratch_beside(output, "pack") as made:
        scratch = made.folder
        placed = place_manifest(
            *(scratch / MANIFEST, output, plan, failures),
            partial=partial,
            scores=scores,
            look=look,
            before_renewing=lambda: ours.append(has_own_card(output)),
        )
        with Rows(scratch / MANIFEST) as rows:
            help_pack(rows, placed.renew)
            for shard in pack(output, rows, scratch, chosen, renew=placed.renew):
                progress(shard)
            draw()
            put_descriptions(output, rows, scratch / MANIFEST, licence, renew=placed.renew, renew_card=any(ours))
        put_failures(output, scratch, renew=placed.renew)
    write_seal(output, sealed_names(output), renew=placed.renew)
    return placed.counts


def put_descriptions(
    output: Output, rows: Rows, manifest: Path, licence: str, *, renew: bool = False, renew_card: bool = False
) -> None:
    """Put the card and the Croissant file beside the shards. A card that is there, which its user may edit, stays.

    `renew`: they are replaced, the card only with `renew_card`.
    """
    summary = summarize(rows, read_run(output) or {}, json.loads(output.get(SHARDS_JSON)))
    known, licence = _card_in(output), card_licence(output, licence)
    if known is None or renew_card:
        card = card_text(summary, licence, output.exists(CONTACT_SHEET)).encode()
        output.put_once(CARD, card, content_type="text/markdown", broken=lambda existing: True)
    croissant = croissant_text(summary, licence, rows.schema, (manifest.stat().st_size, file_sha256(manifest)))
    keep = None if renew else lambda existing: True
    output.put_once(CROISSANT, croissant, content_type="application/ld+json", ours=keep, broken=lambda existing: renew)


def has_own_card(output: Output) -> bool:
    """Whether the card is the one that packing wrote, which nobody has edited; False where that cannot be told."""
    known = _card_in(output)
    with contextlib.suppress(ObjectNotFound, ManifestError, ValueError, KeyError, TypeError):
        with StoredManifest(output) as manifest:
            summary = summarize(manifest.indexed(), read_run(output) or {}, json.loads(output.get(SHARDS_JSON)))
        return known in {card_text(summary, licence_in(known or "") or "", sheet) for sheet in (True, False)}
    return False


def card_licence(output: Output, otherwise: str = "unknown") -> str:
    """The licence that the card names, where its user may have written another."""
    return licence_in(_card_in(output) or "") or otherwise


def _card_in(output: Output) -> str | None:
    try:
        return output.get(CARD).decode(errors="replace")
    except ObjectNotFound:
        return None


def sealed_names(output: Output) -> list[str]:
    """The objects of a packed run whose digests `_SUCCESS` holds. Raises PlanError."""
    some = [name for name in (REJECTS, FAILURES, SCORES, CROISSANT) if output.exists(name)]
    return [RUN_JSON, *page_names(read_run(output) or {}), MANIFEST, RECORD, SHARDS_JSON, *some]
