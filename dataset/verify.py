"""Whether a run is what it says: plan, Redis, images, manifest and shards against each other, every byte by digest.

`_SUCCESS` holds the digests of what is written once (run.json, the plan, the manifest, data/shards.json), the manifest
those of the images, and data/shards.json those of the shards. Without `_SUCCESS` the images are held against the plan.
A fast look leaves images and shards to sizes, and to a bucket's own checksums.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from promptmill.dataset.findings import Finding, LedgerFacts
from promptmill.dataset.images import ImageError, look_at
from promptmill.dataset.listing import Listing, foreign_images, read_listing
from promptmill.dataset.manifest import MANIFEST
from promptmill.dataset.pack import SHARDS_JSON, written_objects
from promptmill.dataset.parallel import mapped
from promptmill.dataset.seal import SUCCESS, Seal, SealError, read_seal, sha256_of
from promptmill.dataset.stored_manifest import ManifestError, open_manifest
from promptmill.dataset.subject import Subject
from promptmill.dataset.verify_fast import check_listed_images
from promptmill.dataset.verify_images import check_images, check_ledger
from promptmill.dataset.verify_shards import check_shard_rows
from promptmill.producer.errors import PlanError
from promptmill.producer.layout import CONTACT_SHEET, RUN_JSON
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan_files import load_plan, page_names, read_run

__all__ = ["Finding", "LedgerFacts", "verify"]


def verify(output: Output, *, fast: bool = False, ledger: LedgerFacts | None = None) -> Iterator[Finding]:
    """Everything that is wrong with a run's output; nothing where all is well. `ledger` is what Redis knows of it.

    Memory does not grow with the run. Raises OutputError where it cannot be looked at.
    """
    seal, findings = read_any_seal(output)
    sealed = seal.sha256
    yield from findings
    changed = list(_digests(output, sealed))
    yield from changed
    try:
        plan, run = load_plan(output), read_run(output) or {}
    except PlanError as error:
        if not changed:
            yield Finding(RUN_JSON, str(error), kind="damaged")
        return
    manifest = None
    try:
        manifest = open_manifest(output)
    except ManifestError as error:
        if MANIFEST not in {finding.name for finding in changed}:
            yield Finding(MANIFEST, str(error), kind="damaged")
    with plan, manifest or nullcontext():
        subject = Subject(output, plan, run, manifest, ledger, sealed)
        yield from check_ledger(subject)
        try:
            yield from _check(subject, fast)
            if not fast and not changed:  # else the manifest itself is in doubt
                with contextlib.suppress(pa.ArrowException, OSError, ValueError):  # told with its rows
                    yield from check_shard_rows(subject)
        except PlanError as error:
            yield Finding(RUN_JSON, str(error), kind="damaged")


def read_any_seal(output: Output) -> tuple[Seal, list[Finding]]:
    """`_SUCCESS`, empty where it cannot be read, and what is wrong with it."""
    try:
        seal = read_seal(output)
    except SealError as error:
        return Seal(), [Finding(SUCCESS, str(error), kind="damaged")]
    if not seal.sha256 and (output.exists(MANIFEST) or output.exists(SHARDS_JSON)):
        return Seal(), [Finding(SUCCESS, "is gone, or packing was stopped: pack again", kind="gone")]
    return seal, []


def _check(subject: Subject, fast: bool) -> Iterator[Finding]:
    shards = read_shards(subject.output)
    pages = {*page_names(subject.run), *subject.sealed}
    listing = read_listing(subject.output, pages, {shard["name"] for shard in shards}, subject.plan, subject.run)
    with closing(listing.images):
        yield from listing.findings
        yield from foreign_images(listing, subject.plan)
        yield from check_listed_images(subject, listing) if fast else check_images(subject)
        yield from check_sheet(subject.output, listing)
        yield from _listed_shards(shards, listing) if fast else _shards(subject.output, shards)


def _digests(output: Output, sealed: Mapping[str, str]) -> Iterator[Finding]:
    for name, found in mapped(lambda name: (name, sha256_of(output, name)), sealed):
        yield from _compared(name, found, sealed[name])


def _compared(name: str, found: str | None, expected: str) -> Iterator[Finding]:
    if found is None:
        yield Finding(name, "is gone", kind="gone")
    elif found != expected:
        yield Finding(name, "has other bytes than when it was written")


def read_shards(output: Output) -> list[dict[str, Any]]:
    """The objects of `data/shards.json`; none where it is not there, or cannot be read: its digest tells that."""
    try:
        shards = json.loads(output.get(SHARDS_JSON))["shards"]
        return [asdict(written) for shard in shards for written in written_objects(shard)]
    except (ObjectNotFound, ValueError, KeyError, TypeError, AttributeError):
        return []


def _shards(output: Output, shards: list[dict[str, Any]]) -> Iterator[Finding]:
    for shard, found in mapped(lambda shard: (shard, sha256_of(output, shard["name"])), shards, 4):
        yield from _compared(shard["name"], found, shard["sha256"])


def _listed_shards(shards: list[dict[str, Any]], listing: Listing) -> Iterator[Finding]:
    for shard in shards:
        there = listing.others.get(shard["name"])
        if there is None:
            yield Finding(shard["name"], "is gone", kind="gone")
        elif there.size != shard["bytes"]:
            yield Finding(shard["name"], f"has {there.size} bytes, expected {shard['bytes']}")
        elif there.intact is False:
            yield Finding(shard["name"], "has other bytes than were put there")


def check_sheet(output: Output, listing: Listing) -> Iterator[Finding]:
    """The contact sheet, which is drawn anew when more images come: no digest is kept, and it must decode."""
    if CONTACT_SHEET in listing.others:
        try:
            look_at(output.get(CONTACT_SHEET), decode=True)
        except ImageError as error:
            yield Finding(CONTACT_SHEET, str(error), kind="damaged")
