"""What a JSON file of a run may hold: kinds of values, and how a file is read once and checked.

Reading checks each field that is named here and leaves others alone: a later version may add some.
Importing pydantic takes a tenth of a second, so the modules that every command imports import this
one where they read.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from annotated_types import Ge, Gt, Le
from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PrivateAttr,
    Strict,
    ValidationError,
)
from pydantic_core import CoreSchema

from metakd.errors import UserError
from metakd.plain_data import parse_json, read_text

__all__ = [
    "Amount",
    "Count",
    "File",
    "Flag",
    "Maybe",
    "Number",
    "Part",
    "Positive",
    "PositiveNumber",
    "RoundedAmount",
    "RoundedShare",
    "Share",
    "Whole",
    "known",
    "read_file",
    "reason_of",
]

SCHEMA = 1
"""Version of all files; adding a field does not change it."""

Whole = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Ge(0)]
Positive = Annotated[int, Strict(), Ge(1)]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Amount = Annotated[float, Strict(), AllowInfNan(False), Ge(0)]
PositiveNumber = Annotated[float, Strict(), AllowInfNan(False), Gt(0)]
Share = Annotated[float, Strict(), AllowInfNan(False), Ge(0), Le(1)]
# Sums in single precision, which end a little beyond the bound that holds for the exact ones.
RoundedShare = Annotated[float, Strict(), AllowInfNan(False), Ge(0), Le(1 + 1e-6)]
RoundedAmount = Annotated[float, Strict(), AllowInfNan(False), Ge(-1e-3)]
Flag = Annotated[bool, Strict()]

T = TypeVar("T")


class _NotNull:
    """Of a field that may be absent (then it is None here) but is never null in the file."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds = [kind for kind in get_args(source) if kind is not type(None)]
        return handler.generate_schema(reduce(operator.or_, kinds))


Maybe = Annotated[T | None, _NotNull]


class Part(BaseModel):
    """An object within a file."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, populate_by_name=True)

    @classmethod
    def checked(cls, content: Any) -> Self:
        """Return what `content` says.

        Raises:
            ValueError: the first field that is not what it should be, in one line.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(reason_of(error)) from None

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON: the fields that were given."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class File(Part):
    """The object that a file consists of.

    Attributes:
        needed: fields without which nothing can be done; others may be missing.
        remedy: what to do about a file that cannot be read.
    """

    needed: ClassVar[tuple[str, ...]] = ()
    remedy: ClassVar[str] = "restore it from a copy, or name another run"

    version: Annotated[Literal[1], Field(alias="schema")] = 1
    _content: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """Return what the file holds, also what is not named here, in its order."""
        return self._content

    @classmethod
    def of(cls, content: Any) -> Self:
        """Return what `content` says, as `checked`, if this version can read it."""
        _check_version(content)
        for name in cls.needed:
            if name not in content:
                raise ValueError(f"'{name}' is missing; {cls.remedy}")
        try:
            found = cls.checked(content)
        except ValueError as error:
            raise ValueError(f"{error}; {cls.remedy}") from None
        found._content = dict(content)
        return found

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON: the version, and the fields that were given."""
        return {"schema": self.version, **super().plain()}

    def text(self) -> str:
        """Return the file's text."""
        return json.dumps(self.plain(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def known(**fields: Any) -> dict[str, Any]:
    """Return what is known of fields that are absent otherwise."""
    return {name: value for name, value in fields.items() if value is not None}


AnyFile = TypeVar("AnyFile", bound=File)


def read_file(path: Path, kind: type[AnyFile]) -> AnyFile:
    """Return what a JSON file holds.

    Raises:
        UserError: there is none, it is damaged, or a newer version wrote it.
    """
    try:
        content = parse_json(read_text(path))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return kind.of(content)
    except ValueError as error:
        raise UserError(f"'{path}' cannot be read: {error}") from error


def _check_version(content: Mapping[str, Any]) -> None:
    version = content.get("schema")
    if type(version) is not int or version < 1:
        raise ValueError(f"'schema' is {_shown(version)}, expected {SCHEMA}")
    if version > SCHEMA:
        raise ValueError(
            f"a newer MetaKD wrote it (schema {_shown(version)}, this version reads {SCHEMA}); "
            "install that one"
        )


EXPECTED = {
    "bool": "true or false",
    "dict": "an object",
    "finite": "a finite number",
    "float": "a number",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int": "a whole number",
    "less_than_equal": "at most {le:g}",
    "list": "a list",
    "literal_error": "{expected}",
    "model": "an object",
    "string": "text",
    "tuple": "a list",
}
"""By the kind of error, or by how its name begins, what a value should have been."""


def reason_of(error: ValidationError) -> str:
    """Return the first of the reasons why something cannot be read: place, value, expectation."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    kind = str(first["type"])
    if kind == "missing":
        return f"'{place}' is missing"
    if kind == "value_error":
        return f"'{place}' {first['ctx']['error']}" if place else str(first["ctx"]["error"])
    words = EXPECTED.get(kind) or EXPECTED.get(kind.partition("_")[0]) or str(first["msg"])
    expected = words.format(**first.get("ctx", {}))
    what = f"'{place}'" if place else "it"
    return f"{what} is {_shown(first['input'])}, expected {expected}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
