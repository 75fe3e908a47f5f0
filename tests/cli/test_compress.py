"""`metakd compress`: what reaches the pipeline, and what is refused before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from metakd.config.compose import compose


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(compose().yaml)
    return tmp_path


def test_overrides_reach_the_pipeline(metakd, pipeline, run_folder: Path) -> None:
    words = ("compress=prune", "compress.macs=0.5")
    assert metakd("compress", str(run_folder), *words).status == 0
    assert pipeline.calls == [(run_folder, words, None)]


def test_a_run_recorded_before_there_was_compression(metakd, pipeline, run_folder: Path) -> None:
    file = run_folder / ".hydra" / "config.yaml"
    before, _, after = file.read_text().partition("compress:\n")
    kept = after.splitlines(keepends=True)
    rest = next(i for i, line in enumerate(kept) if not line.startswith(" "))
    file.write_text(before + "".join(kept[rest:]))
    assert metakd("compress", str(run_folder), "compress=quantize").status == 0
    assert len(pipeline.calls) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}"], "compress: how? type compress=prune"),
        (["{}", "compress=prun"], "Did you mean 'prune'"),
        (["{}", "compress=prune", "compress.mac=0.5"], "Did you mean 'compress.macs'?"),
        (["{}", "compress=prune", "compress.macs=1.5"], "compress.macs=1.5: expected"),
        (["{}", "compress=quantize", "compress.bits=9"], "compress.bits=9: expected from 2 to 8"),
        (["/nope", "compress=prune"], "no such run folder"),
        (["compress=prune"], "name the run's folder first"),
        ([], "which run?"),
    ],
)
def test_refused(metakd, pipeline, run_folder: Path, words: list[str], message: str) -> None:
    answer = metakd("compress", *(w.replace("{}", str(run_folder)) for w in words))
    assert answer.status == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert pipeline.calls == []
