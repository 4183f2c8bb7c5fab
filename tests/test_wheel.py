"""R3: the wheel holds the four rooms and the public module, and nothing else."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("app", "pipelines", "search_spaces", "tf_serving")
BUILD = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of the sources, with strays beside them."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tamiz.py", "setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    for stray in ("tests", "benchmarks", "runs", "notes"):
        (source / stray).mkdir()
        (source / stray / "__init__.py").touch()
    (source / "README.md").touch()
    if importlib.util.find_spec("setuptools"):
        # At once and offline; `python -m build` would first make an environment of its own.
        command = [sys.executable, "-c", BUILD, str(built)]
    else:
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(built)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.fail(done.stderr[-2000:])
    return zipfile.ZipFile(next(built.glob("*.whl")))


def test_the_top_level_is_the_rooms_and_the_public_module(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    info = {name for name in top if name.endswith(".dist-info")}
    assert len(info) == 1
    assert top - info == {*ROOMS, "tamiz.py"}


def test_every_module_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    modules = {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert modules - set(wheel.namelist()) == set()


def test_the_files_that_are_filled_in_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    templates = [path for path in (ROOT / "tf_serving" / "deploy" / "templates").rglob("*") if path.is_file()]
    data = {str(path.relative_to(ROOT)) for path in [*templates, *(ROOT / "tf_serving").rglob("*.html")]}
    assert len(data) > 15
    assert data - set(wheel.namelist()) == set()


def test_the_console_script_is_there(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "tamiz = app.cli:main" in wheel.read(name).decode()


def test_the_distribution_says_what_it_needs(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    assert "Name: tamiz\n" in metadata
    assert "Requires-Python: <3.14,>=3.11" in metadata
    for extra in ("gpu", "ray", "mlflow", "onnx", "optuna", "sql", "dev"):
        assert f"Provides-Extra: {extra}\n" in metadata
