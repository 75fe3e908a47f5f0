"""A program of torch.export, run by PyTorch alone.

Loading such a file can run what its author wrote into it: pickles, names of functions, expressions
that are evaluated. So it is looked through first, and refused unless it holds nothing but tensors
and operations on them.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from metakd.exporting.shipped.reasons import reason

__all__ = ["Graph", "check_program", "open_graph"]

MOST_BYTES = 4 << 30
_MEMBER = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|byteorder|version"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|archive_(format|version)|\.data/(version|serialization_id)|\.format_version"
)
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(from_file|save|load\w*|_print|warn)\.)\w+\.\w+|torch\.sym_(max|min|sum|not|float|int|ite)"
    r"|_operator\.(add|sub|mul|neg|floordiv|truediv|mod|pow|ge|le|gt|lt|eq|ne|and_|or_|getitem)"
)
_SIZE = re.compile(
    r"(Symbol|Integer|Max|Min|Mod|FloorDiv|Mul|Add|Pow|True|False|positive|integer|nonnegative|real"
    r"|commutative|evaluate|Eq|Ne|Ge|Le|Gt|Lt|GreaterThan|LessThan|StrictGreaterThan"
    r"|StrictLessThan|Equality|Unequality|PythonMod|CleanDiv|'[su]\d+'|[su]\d+|\d+"
    r"|[\s(),=<>*/+%-])*"
)
_GUARD = re.compile(
    r"(L\['\w+'\]|\.size\(\)|\[\d+\]|\d+|and|or|not|Max|Min|max|min|True|False|[\s(),=<>!*/+%-])*"
)


class Graph:
    """A program of torch.export.

    Args:
        file: of the program.
        threads: not used: PyTorch's own number is the process's (`torch.set_num_threads`).

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: the file is no program, or one that could run other code.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        import torch

        check_program(file)
        logging.getLogger("torch._export").setLevel(logging.ERROR)  # it tells of unused sizes
        try:
            self._module: Any = torch.export.load(file).module()
        except Exception as error:  # anything, from a file that is damaged
            raise ValueError(reason(error)) from None
        self._torch = torch

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the output.

        Raises:
            ValueError: inputs that the program does not take.
        """
        try:
            # In the precision that was checked, whatever the caller computes in.
            with self._torch.inference_mode(), self._torch.autocast("cpu", enabled=False):
                found = self._module(*(self._torch.from_numpy(one) for one in inputs))
            result: np.ndarray = found.numpy()
        except Exception as error:  # as above
            raise ValueError(reason(error)) from None
        return result


def open_graph(file: Path, threads: int = 0) -> Graph:
    """Return the program in a file; arguments and errors as `Graph`'s."""
    return Graph(file, threads)


def check_program(file: Path) -> None:
    """Refuse a file that holds anything but tensors and operations on them.

    Raises:
        ValueError: saying what it holds.
    """
    import torch

    try:
        with zipfile.ZipFile(file) as packed:
            if sum(one.file_size for one in packed.infolist()) > MOST_BYTES:
                raise ValueError("it unpacks to more than 4 GiB")
            members = {}
            for name in packed.namelist():
                inner = PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix()
                if not _MEMBER.fullmatch(inner) or inner in members:
                    raise ValueError(f"it holds '{inner}'")
                members[inner] = name
            for inner, name in members.items():
                if inner.endswith(".json"):
                    _check_values(json.loads(packed.read(name)))
            example = packed.read(members["data/sample_inputs/model.pt"])
        if example:
            torch.load(io.BytesIO(example), weights_only=True)  # torch would load more of it
    except Exception as error:  # anything, from a file that is damaged
        if type(error) is ValueError:
            raise
        raise ValueError(f"it is no program: {reason(error)}") from None


def _check_values(content: Any) -> None:
    for key, value in _pairs(content):
        called = key == "target" and isinstance(value, str) and re.search(r"[.#]", value)
        if called and not _OPERATOR.fullmatch(value):
            raise ValueError(f"it calls '{value[:60]}'")
        if key == "as_string" and not re.fullmatch(r"[\w ,>-]{0,40}", str(value)):
            raise ValueError("an operation of it is given a text")
        if key == "expr_str" and not _SIZE.fullmatch(str(value)):
            raise ValueError("it has a size that is computed in an unknown way")
        if key == "guards_code" and not all(_GUARD.fullmatch(str(one)) for one in value or ()):
            raise ValueError("it has a condition of an unknown kind")
        if key == "use_pickle" and value:
            raise ValueError("it holds a pickle")


def _pairs(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _pairs(value)
    elif isinstance(content, list):
        for value in content:
            yield from _pairs(value)
