"""`tamiz deploy` and `tamiz bench-serve`: what a user mistypes is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    return line


def test_deploy_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    assert "p95 is 'soon': expected a time" in refused("deploy", tmp_path, "--to", tmp_path / "d", "--p95", "soon")
    message = "Expected the name of an image such as registry.example/adult:1, received 'A B'"
    assert message in refused("deploy", tmp_path, "--to", tmp_path / "d", "--image", "A B")
    assert f"{tmp_path}" in refused("deploy", tmp_path, "--to", tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:none",), "Expected an address such as localhost:8501, received 'localhost:none'"),
        (("127.0.0.1:1",), "127.0.0.1:1 cannot be put under load: 127.0.0.1:1 cannot be reached"),
        (("127.0.0.1:1", "--rows", "0"), "Expected rows between 1 and"),
        (("127.0.0.1:1", "--picture", "load.png"), "Expected a name that ends in .svg for the picture"),
        (("127.0.0.1:1", "--picture", "no/load.svg"), "Cannot write no/load.svg: the folder no does not exist"),
    ],
)
def test_bench_serve_refuses_what_makes_no_sense(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("bench-serve", *arguments, "--model", "m")
