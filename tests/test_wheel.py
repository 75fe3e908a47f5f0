"""The wheel holds everything: built, installed elsewhere, it runs from the root folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from metakd.config.locate import conf_folder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(ROOT), *options], check=True)
    (file,) = folder.glob("metakd-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return target


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_holds_code_configuration_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = conf_folder()
    files = [p.relative_to(conf).as_posix() for p in conf.rglob("*.yaml")]
    assert {f"metakd/conf/{f}" for f in files} <= names
    package = ROOT / "metakd"
    code = [p.relative_to(ROOT).as_posix() for p in package.rglob("*.py")]
    assert set(code) <= names
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert not any(n.startswith(("tests/", "outputs/", "conf/")) for n in names)


def test_holds_the_data_files_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    others = [
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "metakd").rglob("*")
        if p.is_file() and p.suffix not in (".py", ".pyc") and "conf" not in p.parts
    ]
    assert set(others) <= names


def test_runs_from_anywhere(installed: Path) -> None:
    where = run(installed, "-c", "import metakd; print(metakd.__file__)").stdout
    assert where.startswith(str(installed))
    help_text = run(installed, "-m", "metakd", "--help")
    assert (help_text.returncode, "train" in help_text.stdout) == (0, True)
    listed = run(installed, "-m", "metakd", "list", "algorithm")
    assert "algorithm=protonet" in listed.stdout
    shown = run(installed, "-m", "metakd", "train", "--cfg", "job", "student=conv4")
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["student"]["name"] == "conv4"
    path = run(installed, "-m", "metakd", "train", "--info", "searchpath").stdout
    assert str(installed / "metakd" / "conf") in path


def test_holds_the_dashboard_s_page(installed: Path) -> None:
    code = (
        "from metakd.dashboard import page\n"
        "print(page.__file__, len(page.html()), sum(len(page.part(n)) for n in page.PARTS))"
    )
    where, *sizes = run(installed, "-c", code).stdout.split()
    assert where.startswith(str(installed))
    assert int(sizes[0]) > 1000
    assert int(sizes[1]) > 1_500_000  # with the libraries of table and charts


def test_console_script(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "metakd = metakd.cli:main" in archive.read(entry).decode()
