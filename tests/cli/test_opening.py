"""The first line of a run says what is about to be done, before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import metakd
from metakd.cli.train import opening


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ((), "glyphs, protonet, student conv4_small taught by conv4 (embedding)"),
        (("distill=none", "algorithm=maml"), "glyphs, maml, student conv4_small"),
    ],
)
def test_it_names_the_choices(typed: tuple[str, ...], words: str) -> None:
    line = f"metakd {metakd.__version__}: {words}\nloading torch …"
    assert opening(metakd.compose(*typed).config) == line


def test_it_is_said_before_torch_is_loaded() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None  # whoever imports it now fails\n"
        "from metakd.cli import main\n"
        "main(['train', 'tracker=none', 'hydra.run.dir=/nonexistent/x'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert done.stdout.startswith(f"metakd {metakd.__version__}: glyphs, protonet, student")
    assert "import of torch halted" in done.stderr
