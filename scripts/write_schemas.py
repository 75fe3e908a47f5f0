"""Write the JSON Schemas of docs/schemas anew, from the records that read and write these files.

python scripts/write_schemas.py           # rewrites the files
python scripts/write_schemas.py --check   # status 1 if one is not current
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from metakd.runs.record import Part
from metakd.runs.records import ClassSplit, Results
from metakd.runs.records_compare import ComparisonRecord
from metakd.runs.records_export import BundleFile
from metakd.runs.records_run import RunInfo
from metakd.runs.records_sweep import SweepRecord
from metakd.runs.records_using import CalibrationFile, Predictions

__all__ = ["FOLDER", "SCHEMAS", "main", "text_of"]

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
SCHEMAS: Mapping[str, type[Part]] = {
    "bundle": BundleFile,
    "calibration": CalibrationFile,
    "compare": ComparisonRecord,
    "predict": Predictions,
    "results": Results,
    "run": RunInfo,
    "split": ClassSplit,
    "sweep": SweepRecord,
}
"""By the file's name, the record that it describes."""


class Described(GenerateJsonSchema):
    """Says of a field what it may be, not what readers make of one that is absent."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave out the default: a field without one is absent."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Give no field a title: its name is one."""
        return False


def text_of(record: type[Part]) -> str:
    """Return the schema of a record as text."""
    schema = record.model_json_schema(schema_generator=Described)
    for part in schema.get("$defs", {}).values():
        part.pop("title", None)
    plain = _plain(schema)
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": plain.pop("title")}
    return json.dumps(found | plain, indent=2, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Return a schema whose descriptions are one line each.

    `$file`, which names another schema, becomes a reference; pydantic takes none to other files.
    """
    if isinstance(value, dict):
        pairs = {"$ref" if key == "$file" else key: _plain(v) for key, v in value.items()}
        words = pairs.get("description")
        return (
            {**pairs, "description": " ".join(words.split())} if isinstance(words, str) else pairs
        )
    return [_plain(child) for child in value] if isinstance(value, list) else value


def main(words: Sequence[str]) -> int:
    """Write the files, or check them; return the exit status."""
    stale = []
    for name, record in SCHEMAS.items():
        path, text = FOLDER / f"{name}.schema.json", text_of(record)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if "--check" not in words:
                path.write_text(text, encoding="utf-8")
    if stale:
        print(f"{'not current' if '--check' in words else 'written'}: {', '.join(stale)}")
    return int("--check" in words and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
