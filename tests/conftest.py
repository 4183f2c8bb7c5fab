"""What the tests of several rooms share: real data, and small spaces of one's own."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The search's many small systems gain nothing from more threads, and lose much where tests share two cores with
# workers. It must be said before NumPy is first imported, by this process or one that it starts.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# The import of TensorFlow and every graph make hundreds of thousands of objects that stay. With Python's own threshold
# a fifth of the tests' time goes into looking among them for garbage.
gc.set_threshold(100_000, 20, 50)

import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# How long an example takes says how busy the machine is. `make test` draws the same examples each time, so that what
# passes here passes there; `make explore` draws new ones, to find what nobody thought of.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("explore", settings.get_profile("any machine"), derandomize=False, max_examples=1_000)
settings.load_profile("any machine")

# A shell starts what runs in its background deaf to Ctrl-C, and so would be every program that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes long comes first, so that nothing is waited for at the end. The tests of such a folder share models,
# servers or finished searches that take long to make: where several processes run the tests, one has the whole folder.
LONG = ("tests/tf_serving", "tests/app/training", "tests/end_to_end", "tests/conformance/test_executors.py")

PENGUINS = Path(__file__).resolve().parents[1] / "examples" / "penguins.csv"

SPACES = '''
import keras


def classes(hp):
    """A small network for three classes."""
    return compiled(hp, hp.Int("width", 4, 16), 3)


def wide(hp):
    """A network whose state takes megabytes."""
    return compiled(hp, hp.Int("width", 40_000, 50_000), 3)


def number(hp):
    """A small network for a regression."""
    return compiled(hp, hp.Int("width", 4, 16), 1)


def nothing(hp):
    """Forgets to return its model."""
    hp.Int("width", 1, 2)


def compiled(hp, width, outputs):
    dense = keras.layers.Dense
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if outputs > 1 else "mse"
    model = keras.Sequential([dense(width, activation="relu"), dense(outputs)])
    model.compile(keras.optimizers.Adam(hp.Float("rate", 1e-3, 1e-2, sampling="log")), loss=loss)
    return model
'''


def shared_part(test: str) -> str:
    """Returns the file of a test, or the folder that it shares much with."""
    file = test.partition("::")[0]
    return next((long for long in LONG if file.startswith(long)), file)


@functools.cache
def forget_what_stays() -> None:
    """Takes TensorFlow's objects out of the collector's sight, as workers do.

    Every trial that ends collects garbage, and so does Keras with its graphs: each time, the collector would look among
    hundreds of thousands of objects that never go.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_logstart() -> None:
    if "tensorflow" in sys.modules:
        forget_what_stays()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {part: place for place, part in enumerate(LONG)}
    items.sort(key=lambda item: order.get(shared_part(item.nodeid), len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByPart(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared_part(nodeid)

    return ByPart(config, log)


@pytest.fixture(scope="session")
def penguins_csv() -> Path:
    """344 penguins of three species: numbers, categories and missing values."""
    return PENGUINS


@pytest.fixture(scope="session")
def penguins() -> pd.DataFrame:
    return pd.read_csv(PENGUINS)


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of 120 handwritten digits, 8 x 8 grey PNGs, in a folder for each of the classes 0, 1 and 2."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("images") / "digits"
    digits = load_digits(n_class=3)
    for digit in range(3):
        (folder / str(digit)).mkdir(parents=True)
        for number, scan in enumerate(digits.images[digits.target == digit][:40]):
            image = Image.fromarray((scan * 15).astype("uint8"))
            image.save(folder / str(digit) / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="session")
def space_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module `penguin_spaces`, to be the working directory."""
    folder = tmp_path_factory.mktemp("spaces")
    (folder / "penguin_spaces.py").write_text(SPACES)
    return folder


def postgresql_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of an empty database of a server of its own, where one is installed (`apt-get install postgresql`)."""
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg")
    binaries = postgresql_programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as root; Debian's package brings a user.
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    password = folder / "password"
    password.write_text("s3cr et/@")
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(password, "postgres", "postgres")

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=120, **as_user)  # type: ignore[call-overload]

    try:
        access = ("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}")
        run("initdb", *access, "--username=me", "--encoding=UTF8", "--locale=C", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://me:s3cr%20et%2F%40@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
