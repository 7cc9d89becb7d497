"""Store what transformers 4's own CLIPTokenizer, in Python and without `ftfy`, makes of the varied strings.

python -m venv old && old/bin/pip install transformers==4.57.6 jaxtyping
old/bin/pip install --no-deps open-clip-torch && old/bin/python -m tests.parity.make_token_references
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from benchmarks.real_tokenizers import LENGTH, find_table, write_tokenizers
from tests.parity.strings import varied_strings
from tests.parity.token_ids import NAMES, STORED, checksum_of_strings, checksums


def main() -> None:
    table = find_table()
    if table is None or not transformers.__version__.startswith("4."):
        raise SystemExit(__doc__)
    strings = varied_strings()
    with tempfile.TemporaryDirectory() as name:
        write_tokenizers(Path(name), table)
        slow = {part: checksums(_ids(Path(name) / part, strings)) for part in NAMES}
    arrays: Any = {"strings": checksum_of_strings(strings), **slow}
    np.savez_compressed(STORED, **arrays)


def _ids(folder: Path, strings: list[str]) -> list[list[int]]:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(folder))
    assert not tokenizer.is_fast and tokenizer.fix_text is None
    return tokenizer(strings, padding="max_length", max_length=LENGTH, truncation=True)["input_ids"]


if __name__ == "__main__":
    main()
