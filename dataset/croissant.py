"""`croissant.json`: the dataset as MLCommons' Croissant 1.1 describes one, for `mlcroissant` and the catalogues.

Record sets: `manifest`, a row per job; and `samples`, a row per image, where images lie in Parquet or tars.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from promptmill.dataset.manifest import MANIFEST
from promptmill.dataset.summary import Summary
from promptmill.dataset.tables import IMAGE, WITH_IMAGES
from promptmill.producer.image_formats import IMAGE_FORMATS
from promptmill.producer.words import count

CROISSANT = "croissant.json"

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the specification gives (docs.mlcommons.org/croissant)."""

READ_BY_MLCROISSANT = ("image/png", "image/jpeg")

PARQUET, TAR = "application/x-parquet", "application/x-tar"

Node = dict[str, Any]


def croissant_text(summary: Summary, licence: str, schema: pa.Schema, manifest: tuple[int, str]) -> bytes:
    """The file's bytes, the same for the same dataset. `schema`, size and sha256 are manifest.parquet's."""
    files = [_file(MANIFEST, *manifest, PARQUET)]
    columns = _columns("manifest", schema, MANIFEST)
    records = [_record_set("manifest", "A row per job, also without an image.", columns)]
    ADD[summary.options.format](summary, files, records)
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": summary.name,
        "description": f"{count(summary.samples, 'image', commas=True)}, each rendered from a prompt by promptmill.",
        "license": licence,
        "datePublished": str(summary.run.get("created", "1970-01-01"))[:10],
        "version": "1.0.0",
        "distribution": files,
        "recordSet": records,
    }
    return f"{json.dumps(described, indent=1, ensure_ascii=False)}\n".encode()


def _file(name: str, size: int, sha256: str, kind: str) -> Node:
    where = {"contentSize": f"{size} B", "contentUrl": name}
    return {"@type": "cr:FileObject", "@id": name, "name": name, **where, "encodingFormat": kind, "sha256": sha256}


def _shards(summary: Summary, kind: str) -> list[Node]:
    rows: Sequence[Mapping[str, Any]] = summary.index["shards"]
    return [_file(row["name"], row["bytes"], row["sha256"], kind) for row in rows]


def _file_set(name: str, includes: str, kind: str) -> Node:
    """Files beside croissant.json."""
    return {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": kind, "includes": includes}


def _record_set(name: str, description: str, fields: list[Node]) -> Node:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "field": fields}


def _columns(record_set: str, schema: pa.Schema, source: str, where: str = "fileObject") -> list[Node]:
    return [_column(record_set, field, source, where) for field in schema]


def _column(record_set: str, field: pa.Field, source: str, where: str) -> Node:
    image = {"transform": {"jsonPath": "bytes"}} if field.type == IMAGE else {}
    extract = {where: {"@id": source}, "extract": {"column": field.name}, **image}
    return _field(record_set, field.name, field.type, extract)


def _field(record_set: str, name: str, kind: pa.DataType, source: Node) -> Node:
    repeated = {"repeated": True} if pa.types.is_list(kind) else {}
    of = kind.value_type if pa.types.is_list(kind) else kind
    head = {"@type": "cr:Field", "@id": f"{record_set}/{name}", "name": name, "dataType": _data_type(of)}
    return head | repeated | {"source": source}


def _data_type(kind: pa.DataType) -> str:
    if kind == IMAGE:
        return "sc:ImageObject"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Boolean" if pa.types.is_boolean(kind) else "sc:Text"


def _add_parquet(summary: Summary, files: list[Node], records: list[Node]) -> None:
    files += [*_shards(summary, PARQUET), _file_set("shards", "data/*.parquet", PARQUET)]
    records.append(_record_set("samples", "A row per image.", _columns("samples", WITH_IMAGES, "shards", "fileSet")))


def _add_tars(summary: Summary, files: list[Node], records: list[Node]) -> None:
    # No record set of what is in them: mlcroissant unpacks a tar once for all datasets that have one of its name.
    files += _shards(summary, TAR)


def _add_folders(summary: Summary, files: list[Node], records: list[Node]) -> None:
    image = IMAGE_FORMATS[summary.options.image_format]
    files += _shards(summary, PARQUET)
    if image.content_type not in READ_BY_MLCROISSANT:
        return
    files.append(_file_set("images", f"data/*.{image.extension}", image.content_type))
    source = {"fileSet": {"@id": "images"}}
    number = {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"^0*(\d+)\."}}
    fields = [
        _field("samples", "index", pa.int64(), source | number),
        _field("samples", "image", IMAGE, source | {"extract": {"fileProperty": "content"}}),
    ]
    records.append(_record_set("samples", "A row per image; the rest is in the manifest, by its index.", fields))


ADD = {"parquet": _add_parquet, "webdataset": _add_tars, "imagefolder": _add_folders}
"""By the format of the dataset."""
