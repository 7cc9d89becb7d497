"""Samples as rows of Parquet, with the image inside or beside, as Hugging Face's `datasets` reads them.

The same bytes whenever they are written by the same version of pyarrow, whose name stands in each file.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.dataset.manifest import SCHEMA
from promptmill.dataset.samples import COLUMNS, Sample

GROUP_ROWS = 100
"""Samples per row group: who reads one of them from a bucket fetches so many. As `datasets` writes images."""

GROUP_BYTES = 64 << 20
"""Of images per row group at most, for memory."""

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
"""How `datasets` keeps an image: the file's bytes, and its name."""

_VALUES = [pa.field(name, SCHEMA.field(name).type) for name in COLUMNS]


def _feature(kind: pa.DataType) -> Any:
    """A column as `datasets` describes it in a file's metadata. A list is written as all of its versions read it."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def _schema(fields: list[pa.Field]) -> pa.Schema:
    features = {field.name: _feature(field.type) for field in fields}
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def yaml_features(schema: pa.Schema) -> list[dict[str, str]]:
    """The columns as a dataset's card describes them."""
    return [{"name": field.name, **_yaml_feature(field.type)} for field in schema]


def _yaml_feature(kind: pa.DataType) -> dict[str, str]:
    if kind == IMAGE:
        return {"dtype": "image"}
    if pa.types.is_list(kind):
        return {"list": _yaml_feature(kind.value_type)["dtype"]}
    return {"dtype": _feature(kind)["dtype"]}


WITH_IMAGES = _schema([pa.field("image", IMAGE), *_VALUES])
BESIDE_IMAGES = pa.schema([pa.field("file_name", pa.string()), *_VALUES])


def write_with_images(file: Any, samples: Iterable[Sample]) -> int:
    """Write samples with their images as Parquet; return how many there were. `file` is open, or a path."""
    compression = dict.fromkeys(_leaves(WITH_IMAGES), "zstd") | {"image.bytes": "none"}  # files are packed already
    texts = [name for name in compression if name not in ("image.bytes", "image.path")]
    count = 0
    settings = {"compression": compression, "use_dictionary": texts, "write_statistics": texts}
    with pq.ParquetWriter(file, WITH_IMAGES, **settings) as writer:
        for group in _groups(samples):
            image = [{"bytes": sample.data, "path": f"{sample.key}.{sample.extension}"} for sample in group]
            rows = [{"image": own, **_said(sample)} for own, sample in zip(image, group, strict=True)]
            writer.write_table(pa.Table.from_pylist(rows, schema=WITH_IMAGES), row_group_size=len(rows))
            count += len(group)
    return count


def write_beside_images(file: Any, samples: Iterable[Sample]) -> None:
    """Write `metadata.parquet` of samples whose images lie beside it."""
    rows = [{"file_name": f"{sample.key}.{sample.extension}", **_said(sample)} for sample in samples]
    pq.write_table(pa.Table.from_pylist(rows, schema=BESIDE_IMAGES), file, compression="zstd")


def _said(sample: Sample) -> dict[str, Any]:
    return {name: sample.row[name] for name in COLUMNS}


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """The columns as Parquet names them."""
    for field in schema:
        if pa.types.is_struct(field.type):
            yield from (f"{field.name}.{inner.name}" for inner in field.type)
        else:
            yield f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def _groups(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    group, size = list[Sample](), 0
    for sample in samples:
        if group and (len(group) == GROUP_ROWS or size + len(sample.data) > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(sample)
        size += len(sample.data)
    if group:
        yield group
