"""`tamiz profile`, `tamiz validate` and `tamiz data lock` as a person runs them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.config import DataConfig, ExperimentConfig
from app.data_contract import profile_data, validate_data, write_profile
from app.data_files import write_data
from app.data_lock import check_lock
from app.data_source import read_source
from app.data_stage import prepare_data
from app.errors import RunDirectoryError
from app.read_rows import facts_of
from app.run_directory import RunDirectory
from pipelines import stored_rows
from pipelines.sources import open_source


def homes(num_rows: int = 2_000, *, seed: int = 0, price: float = 100.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    found = pd.DataFrame(
        {
            "rooms": rng.integers(1, 9, num_rows),
            "price": rng.normal(price, 20.0, num_rows).round(1),
            "city <b>": rng.choice(["Rome", "Oslo", "Bonn"], num_rows),
            "day": pd.date_range("2020-01-01", periods=num_rows).strftime("%d.%m.%Y"),
        }
    )
    return found.assign(sold=np.where(found["price"] + 5 * found["rooms"] > price + 22, "yes", "no"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    homes().to_csv("homes.csv", index=False)
    homes(seed=1).to_csv("new.csv", index=False)
    return tmp_path


def tamiz(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_profile_is_shown_and_written(folder: Path) -> None:
    done = tamiz("profile", "homes.csv", "--target", "sold", "--output", "profile")
    assert done.exit_code == 0, done.output
    assert "homes.csv: 2,000 rows, 5 columns" in done.output
    assert re.search(r"price\s+numeric\s+double\s+0\.0%.*0\.\d\d$", done.output, re.MULTILINE)
    page = Page()
    page.feed((folder / "profile" / "profile.html").read_text())
    assert page.tags.count("svg") == 2
    assert "city <b>" in page.text
    assert {"correlation ratio", "Cramér's V"} <= set(re.findall(r"correlation ratio|Cramér's V", page.text))
    assert {"b", "script"} & set(page.tags) == set()
    profile = json.loads((folder / "profile" / "profile.json").read_text())
    assert profile["split_rows"] == [1400, 300, 300]
    rules = json.loads((folder / "profile" / "schema.json").read_text())["columns"]
    assert set(rules["city <b>"]["values"]) == {"Rome", "Oslo", "Bonn"}
    assert rules["day"] == {
        "kind": "datetime", "datetime_format": "%d.%m.%Y", "max_missing_share": 0.05, "tolerance": 0.01
    }  # fmt: skip
    assert rules["sold"]["required"] is False


def test_data_without_a_target_has_a_profile_as_well(folder: Path) -> None:
    done = tamiz("profile", "homes.csv", "--output", folder / "profile")
    assert done.exit_code == 0, done.output
    assert json.loads((folder / "profile" / "profile.json").read_text())["split_rows"] == [2000, 0, 0]
    assert tamiz("validate", "new.csv", "--schema", "profile/schema.json").exit_code == 0


def test_rows_that_could_predict_nothing_have_a_profile_as_well(folder: Path) -> None:
    pd.DataFrame({"a": [1.5] * 20}).to_csv(folder / "constant.csv", index=False)
    done = tamiz("profile", "constant.csv", "--output", "found")
    assert done.exit_code == 0, done.stderr
    assert "dropped: constant, 1.5 in all 20" in " ".join(done.stdout.split())
    assert tamiz("validate", "constant.csv", "--schema", "found/schema.json").exit_code == 0


def test_like_data_keeps_the_contract(folder: Path) -> None:
    tamiz("profile", "homes.csv", "--target", "sold", "--output", "profile")
    done = tamiz("validate", "new.csv", "--schema", "profile/schema.json", "--report", "result.json")
    assert done.exit_code == 0, done.output
    assert "The data keeps the contract; 4 columns compared with the profile." in done.output
    result = json.loads((folder / "result.json").read_text())
    assert result["good"] is True
    assert [drift["column"] for drift in result["drift"] if drift["drifts"]] == []


def test_the_time_column_keeps_its_format(folder: Path) -> None:
    tamiz("profile", "homes.csv", "--target", "sold", "--time-column", "day", "--output", "profile")
    rules = json.loads((folder / "profile" / "schema.json").read_text())["columns"]
    assert (rules["day"]["kind"], rules["day"]["datetime_format"]) == ("datetime", "%d.%m.%Y")
    done = tamiz("validate", "new.csv", "--schema", "profile/schema.json")
    assert done.exit_code == 0, done.output


def test_text_stays_text_where_the_new_rows_alone_look_like_numbers(folder: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = {"size": ["1.50", "2.00", "XL"], "flag": ["TRUE", "FALSE", "unknown"]}
    rows = pd.DataFrame({name: rng.choice(values, 1_000) for name, values in sizes.items()})
    rows.assign(n=np.arange(1_000)).to_csv(folder / "sizes.csv", index=False)
    tamiz("profile", "sizes.csv", "--output", "profile")
    rows[(rows["size"] != "XL") & (rows["flag"] != "unknown")].assign(n=1).to_csv(folder / "fewer.csv", index=False)
    done = tamiz("validate", "fewer.csv", "--schema", "profile/schema.json")
    assert done.exit_code == 0, done.output


def test_other_data_ends_with_code_1_and_says_why(folder: Path) -> None:
    tamiz("profile", "homes.csv", "--target", "sold", "--output", "profile")
    homes(seed=1, price=115.0).assign(**{"city <b>": "Paris"}).drop(columns="day").to_csv("new.csv", index=False)
    done = tamiz("validate", "new.csv", "--schema", "profile/schema.json", "--report", "result.json")
    assert done.exit_code == 1
    for message in (
        r"problem: column 'day' \(present\) is not there",
        r"problem: column 'city <b>' \(values\) expected only .* but 2,000 of 2,000 rows have others",
        r"drift: column 'price' differs from the training rows \(PSI 0\.\d+, distance 0\.\d+, KS p .* corrected\)",
        r"drift: column 'city <b>' differs .* 100\.0% in new categories",
    ):
        assert re.search(message, done.output), done.output
    assert json.loads((folder / "result.json").read_text())["good"] is False


def test_expectations_are_checked_as_well(folder: Path) -> None:
    tamiz("profile", "homes.csv", "--output", "profile")
    (folder / "rules.toml").write_text('[rooms]\nrange = [1, 3]\nnot_null = true\n["city <b>"]\nmatches = "[A-Z].*"\n')
    done = tamiz("validate", "new.csv", "--schema", "profile/schema.json", "--expect", "rules.toml")
    assert done.exit_code == 1
    assert re.search(r"column 'rooms' \(range\) expected numbers from 1 to 3, but 1,\d+ of 2,000", done.output)
    assert "city <b>" not in done.output


def test_a_run_is_a_contract(folder: Path) -> None:
    config = ExperimentConfig(data=DataConfig(target="sold"))
    with RunDirectory(folder / "run").staged() as staged:
        write_data(prepare_data(read_source("homes.csv", config), config), config, directory=staged)
    homes(seed=1).drop(columns="sold").head(50).to_csv("new.csv", index=False)
    done = tamiz("validate", "new.csv", "--schema", "run")
    assert done.exit_code == 0, done.output
    assert "With 50 rows, fewer than 500, drift was not measured." in done.output
    homes(seed=1).drop(columns="rooms").to_csv("new.csv", index=False)
    assert tamiz("validate", "new.csv", "--schema", "run").exit_code == 1


def test_a_model_ships_the_profile_that_drift_is_measured_against(folder: Path) -> None:
    config = ExperimentConfig(data=DataConfig(target="sold"))
    shipped = folder / "export" / "homes" / "1" / "assets.extra"
    shipped.mkdir(parents=True)
    with RunDirectory(folder / "run").staged() as staged:
        write_data(prepare_data(read_source("homes.csv", config), config), config, directory=staged)
        for file in (staged.schema_file, staged.profile_file):
            (shipped / file.name).write_bytes(file.read_bytes())
    homes(seed=2).drop(columns="sold").to_csv("new.csv", index=False)
    for place in ("run", "export/homes/1"):
        assert tamiz("validate", "new.csv", "--against", place).exit_code == 0
    homes(seed=2).assign(rooms=3).drop(columns="sold").to_csv("new.csv", index=False)
    for place in ("run", "export/homes/1"):
        done = tamiz("validate", "new.csv", "--against", place, "--report", "found.json")
        assert done.exit_code == 1
        drifted = [one["column"] for one in json.loads(Path("found.json").read_text())["drift"] if one["drifts"]]
        assert drifted == ["rooms"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), r"name what the data is compared with: a contract \(--schema\), or a run or a model \(--against\)"),
        (("--schema", "schema.json", "--against", "run"), "name what the data is compared with"),
        (("--against", "absent"), "cannot read absent, which is not there: expected the .*, a run directory"),
        (("--schema", "absent.json"), "cannot read absent.json, which is not there: expected the schema.json"),
        (("--schema", "new.csv"), "new.csv is damaged"),
        (("--schema", "other.json"), "Expected a data contract as `tamiz profile` writes it"),
        (("--schema", "schema.json", "--expect", "absent.toml"), "cannot read the expectations absent.toml"),
        (("--schema", "schema.json", "--expect", "new.csv"), "new.csv is not valid TOML"),
        (("--schema", "schema.json", "--profile", "absent.json"), "cannot read absent.json"),
    ],
)
def test_contracts_that_cannot_be_read(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    (folder / "other.json").write_text("{}")
    (folder / "schema.json").write_text('{"contract": 1, "columns": {}}')
    done = tamiz("validate", "new.csv", *arguments)
    assert done.exit_code == 2
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_contract_without_a_profile_says_that_drift_was_not_measured(folder: Path) -> None:
    (folder / "schema.json").write_text('{"contract": 1, "columns": {"rooms": {"kind": "numeric"}}}')
    done = tamiz("validate", "new.csv", "--schema", "schema.json")
    assert done.exit_code == 0
    assert "There is no profile.json beside schema.json: drift was not measured." in done.output


def test_locked_data_is_recognised_and_changed_data_refused(folder: Path) -> None:
    # The first two hashes are those of the file itself and of what it was imported from.
    (folder / "homes.csv.dvc").write_text(
        f"md5: {'a' * 32}\ndeps:\n- md5: {'b' * 32}\n  path: far\nouts:\n"
        "- md5: 0123456789abcdef0123456789abcdef\n  path: homes.csv\n"
    )
    done = tamiz("data", "lock", "homes.csv", "--output", "homes.lock")
    assert done.exit_code == 0, done.output
    (file,) = json.loads((folder / "homes.lock").read_text())["files"]
    assert file["dvc_md5"] == "0123456789abcdef0123456789abcdef"
    assert file["num_bytes"] == (folder / "homes.csv").stat().st_size
    config = ExperimentConfig(data=DataConfig(target="sold", lock="homes.lock"))
    assert read_source("homes.csv", config).table.num_rows == 2_000
    homes(seed=2).to_csv("homes.csv", index=False)
    with pytest.raises(RunDirectoryError, match=r"is not what homes\.lock locked .*; changed: homes\.csv\): restore"):
        read_source("homes.csv", config)
    done = tamiz("search", "homes.csv", "--target", "sold", "--lock", "homes.lock", "--run", "run")
    assert done.exit_code == 2
    assert "restore the data, or lock it anew with `tamiz data lock`" in done.stderr
    assert not (folder / "run").exists()


def test_a_lock_names_files_that_came_and_went(folder: Path) -> None:
    (folder / "parts").mkdir()
    for name in ("a", "b"):
        homes(50).to_parquet(folder / "parts" / f"{name}.parquet")
    (folder / "parts.dvc").write_text(f"outs:\n- md5: {'c' * 32}.dir\n  nfiles: 2\n  path: parts\n")
    assert tamiz("data", "lock", "parts", "--output", "parts.lock").exit_code == 0
    files = json.loads((folder / "parts.lock").read_text())["files"]
    assert [file["dvc_md5"] for file in files] == [f"{'c' * 32}.dir"] * 2
    (folder / "parts" / "b.parquet").rename(folder / "parts" / "c.parquet")
    table = read_source("parts", ExperimentConfig())
    check_lock(table.facts, folder / "parts.lock")  # the same rows in the same order
    homes(51).to_parquet(folder / "parts" / "c.parquet")
    with pytest.raises(RunDirectoryError, match=r"new: c\.parquet; missing: b\.parquet"):
        check_lock(read_source("parts", ExperimentConfig()).facts, folder / "parts.lock")
    (folder / "no.lock").write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"no\.lock is no lock file: expected one written by `tamiz data lock`"):
        check_lock(table.facts, folder / "no.lock")
    (folder / "old.lock").write_text('{"lock": 1, "fingerprint": "", "files": []}')
    with pytest.raises(RunDirectoryError, match=r"old\.lock is a lock file of version 1, expected 2, .* lock the data"):
        check_lock(table.facts, folder / "old.lock")


def test_rows_that_stay_on_disk_are_told_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profile, validation and lock of a table on disk are those of the same table in memory."""
    monkeypatch.setattr(stored_rows, "CHUNK_ROWS", 300)
    homes(seed=1, price=115.0).drop(columns="day").to_csv("new.csv", index=False)
    on_disk, in_memory = (ExperimentConfig(data=DataConfig(in_memory=limit)) for limit in (1, 1 << 30))
    large, small = (profile_data("homes.csv", config) for config in (on_disk, in_memory))
    assert large.profile.columns == small.profile.columns
    assert large.contract == small.contract
    assert large.description == small.description
    (told,) = set(large.profile.findings) - set(small.profile.findings)
    assert "stays on disk" in told.message
    write_profile(small, folder / "profile", page="")
    (folder / "rules.toml").write_text('[rooms]\nrange = [1, 3]\nunique = true\n["city <b>"]\nmatches = "R.*"\n')
    found = [
        validate_data("new.csv", config, schema=folder / "profile" / "schema.json", expect=folder / "rules.toml")
        for config in (on_disk, in_memory)
    ]
    assert found[0] == found[1]
    assert {problem.rule for problem in found[0].problems} == {"range", "unique", "pattern", "present"}
    assert [drift.column for drift in found[0].drifted] == ["price"]
    assert facts_of(open_source("new.csv"), on_disk) == facts_of(open_source("new.csv"), in_memory)


def test_a_profile_of_a_sample_has_the_counts_of_all_rows(folder: Path) -> None:
    on_disk = ExperimentConfig(data=DataConfig(in_memory=1, sample_rows=1_000))
    large, small = (profile_data(folder / "homes.csv", config) for config in (on_disk, ExperimentConfig()))
    for column, exact in zip(large.profile.columns, small.profile.columns, strict=True):
        assert (column.num_distinct, column.missing_share) == (exact.num_distinct, exact.missing_share)
        assert (column.min, column.max, column.kind) == (exact.min, exact.max, exact.kind)
        # A quantile of the sample lies between near quantiles of all rows.
        if exact.quantiles:
            assert exact.quantiles[2] <= column.quantiles[3] <= exact.quantiles[4]
