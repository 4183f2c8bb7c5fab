"""`tamiz profile` and `tamiz validate`: what data is like, and whether new data still is."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from app.config import ExperimentConfig, ForecastConfig
from app.data_stage import PreparedData, prepare_data
from app.errors import ConfigError, RunDirectoryError
from app.forecast_stage import series_report
from app.large_data import prepare_large, sample_note, survey_stored
from app.read_rows import ReadRows, read_rows
from app.run_directory import SHIPPED_FOLDER, RunDirectory, read_json, write_atomically, write_json
from pipelines.association import Association, association
from pipelines.column_values import PLAIN_TYPES, plain_array
from pipelines.contract import Contract, Problem, contract_of
from pipelines.contract_check import ContractCheck
from pipelines.data_report import DataProfile, Finding, Severity, profile_columns
from pipelines.drift import MIN_ROWS, ColumnDrift, DriftCheck, find_drift
from pipelines.inference import infer_features
from pipelines.schema import DatasetSchema, FeatureKind, TargetSpec, Task
from pipelines.sources import DataLike, open_source
from pipelines.splits import Split
from pipelines.survey_report import surveyed_columns

PROFILE_FILE, CONTRACT_FILE, PAGE_FILE = "profile.json", "schema.json", "profile.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """What was found in data.

    Attributes:
        description: What was read.
        profile: Every column, and findings.
        contract: The contract that the profile suggests.
        associations: Column name to its association with the target; empty without a target.
        drift: How the validation rows differ from the training rows; empty without a target.
    """

    description: str
    profile: DataProfile
    contract: Contract
    associations: Mapping[str, Association]
    drift: Sequence[ColumnDrift] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is wrong with data.

    Attributes:
        description: What was read.
        problems: Rules that rows break.
        drift: How the columns differ from the profile, the largest difference first.
        notes: What could not be said, and why.
    """

    description: str
    problems: Sequence[Problem]
    drift: Sequence[ColumnDrift]
    notes: Sequence[str] = ()

    @property
    def drifted(self) -> list[ColumnDrift]:
        """The columns whose difference is neither chance nor small."""
        return [drift for drift in self.drift if drift.drifts]

    @property
    def is_good(self) -> bool:
        """Whether the data may be used."""
        return not self.problems and not self.drifted

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values."""
        return {
            "data": self.description,
            "good": self.is_good,
            "problems": [asdict(problem) for problem in self.problems],
            "drift": [asdict(drift) | {"drifts": drift.drifts} for drift in self.drift],
            "notes": list(self.notes),
        }


def profile_data(data: DataLike, config: ExperimentConfig) -> Profiled:
    """Describes data.

    With a target, the training rows are described, as a search would split them; without one, all rows.

    Args:
        data: What the user calls data.
        config: How it is read, and the target if there is one.

    Raises:
        DataError: It cannot be read or used.
    """
    rows = read_rows(open_source(data), config, folder=Path(tempfile.gettempdir()))
    found = series_report(rows.source, config)
    # The rows are described, not the windows that a forecast makes of them.
    config = replace(config, data=replace(config.data, task="auto"), forecast=ForecastConfig())
    if not config.data.target:
        return _without_target(rows, config, found)
    prepared = prepare_data(rows.source, config) if rows.stored is None else prepare_large(rows, config).prepared
    return _profiled(prepared, found)


def _profiled(prepared: PreparedData, found: Sequence[Finding] = ()) -> Profiled:
    schema = prepared.schema
    training = prepared.table.filter(pa.array(prepared.splits == Split.TRAIN))
    selecting = prepared.table.filter(pa.array(prepared.splits == Split.VALIDATION))
    return Profiled(
        description=prepared.source.description,
        profile=replace(prepared.profile, findings=(*found, *prepared.profile.findings)),
        contract=contract_of(prepared.profile, datetime_formats=_formats(schema), targets=schema.target.names),
        associations=_associations(training, schema),
        drift=find_drift(selecting, prepared.profile.columns, num_rows=training.num_rows),
    )


def _without_target(rows: ReadRows, config: ExperimentConfig, found: Sequence[Finding]) -> Profiled:
    # No column has this name, so that every column is looked at.
    target = TargetSpec("", task=Task.REGRESSION)
    survey = None if rows.stored is None else survey_stored(rows.stored, config)
    if survey is None:
        schema = infer_features(rows.source.table, target)
    else:
        schema = infer_features(survey.sample, target, facts=None if survey.is_complete else survey.facts)
    kinds = {feature.name: feature.kind.value for feature in schema.features}
    columns = profile_columns(rows.source.table, kinds) if survey is None else surveyed_columns(survey, kinds)
    notes = [*rows.source.notes]
    if survey is not None:
        notes.append(sample_note(survey.sample.num_rows, survey.num_rows, limit=config.data.in_memory))
    findings = [*found]
    findings += [Finding(severity=Severity.INFO, code="recognised", message=note) for note in notes]
    findings += [
        Finding(severity=Severity.INFO, code="column", message=f"Column {feature.name!r}: {feature.reason}.")
        for feature in schema.features
        if not feature.used
    ]
    num_rows = rows.source.table.num_rows
    profile = DataProfile(
        num_rows=num_rows, split_rows=(num_rows, 0, 0), columns=columns, findings=tuple(findings)
    )
    contract = contract_of(profile, datetime_formats=_formats(schema))
    return Profiled(description=rows.source.description, profile=profile, contract=contract, associations={})


def write_profile(profiled: Profiled, directory: Path, *, page: str) -> None:
    """Writes profile.json, schema.json and profile.html.

    Args:
        profiled: What was found.
        directory: Folder, made if missing.
        page: The page.
    """
    write_json(directory / PROFILE_FILE, profiled.profile.to_json())
    write_json(directory / CONTRACT_FILE, profiled.contract.to_json())
    write_atomically(directory / PAGE_FILE, page)


def validate_data(
    data: DataLike, config: ExperimentConfig, *, schema: Path, profile: Path | None = None, expect: Path | None = None
) -> Validation:
    """Checks new data against a contract and a profile.

    Args:
        data: What the user calls data.
        config: How it is read.
        schema: A contract that `tamiz profile` wrote, a run directory, the version directory of an exported model, or
            the schema.json of one of these.
        profile: The profile that drift is measured against; None takes the one beside the contract, if there is one.
        expect: TOML file with further expectations.

    Raises:
        DataError: The data cannot be read, or the contract cannot be used.
        RunDirectoryError: A file is missing or damaged.
        ConfigError: The TOML file cannot be read.
    """
    if not schema.exists():
        raise ConfigError(
            f"cannot read {schema}, which is not there: expected the schema.json that `tamiz profile` writes, a run "
            f"directory, or the version folder of an exported model"
        )
    if schema.is_dir():
        shipped = schema / SHIPPED_FOLDER
        schema = shipped / CONTRACT_FILE if shipped.is_dir() else RunDirectory(schema).schema_file
    baseline_file = profile or schema.with_name(PROFILE_FILE)
    baseline = DataProfile.from_json(read_json(baseline_file)) if profile or baseline_file.is_file() else None
    contract = _read_contract(schema, baseline)
    if expect is not None:
        contract = contract.with_expectations(_read_toml(expect))
    if baseline is not None:
        config = replace(config, data=replace(config.data, features=_texts(baseline) | dict(config.data.features)))
    source = open_source(data)
    rows = read_rows(source, config, folder=Path(tempfile.gettempdir()))
    num_rows = rows.source.table.num_rows
    notes = []
    if baseline is None:
        notes.append(f"There is no {PROFILE_FILE} beside {schema}: drift was not measured.")
    elif num_rows < MIN_ROWS:
        notes.append(f"With {num_rows:,} rows, fewer than {MIN_ROWS}, drift was not measured.")
    check = ContractCheck(contract, fixed_columns=source.has_fixed_columns)
    drift = DriftCheck(baseline.columns, num_rows=baseline.split_rows[0]) if baseline else None
    for part in rows.parts():
        check.add(part)
        if drift is not None:
            drift.add(part)
    return Validation(
        description=rows.source.description,
        problems=check.problems(),
        drift=[] if drift is None else drift.found(),
        notes=notes,
    )


def _read_contract(path: Path, baseline: DataProfile | None) -> Contract:
    record = read_json(path)
    if isinstance(record, Mapping) and "features" in record:
        schema = DatasetSchema.from_json(record)  # of a run
        if schema.windows is not None:
            raise RunDirectoryError(
                f"{path} is that of a forecast, whose columns are windows of series: expected a contract of the rows, "
                f"as `tamiz profile` writes it"
            )
        if baseline is None:
            raise RunDirectoryError(f"{path} is the schema of a run: expected its {PROFILE_FILE} beside it")
        contract = contract_of(baseline, datetime_formats=_formats(schema), targets=schema.target.names)
        # A model asks for the columns that it uses, and for no other.
        used = {feature.name for feature in schema.used_features} | set(schema.target.names)
        return Contract(columns=tuple(rule for rule in contract.columns if rule.name in used))
    return Contract.from_json(record)


def _texts(profile: DataProfile) -> dict[str, str]:
    """Returns the columns that were text: what looks like numbers or truths in the new rows alone still is."""
    kinds = ("categorical", "text", "target")
    return {column.name: "text" for column in profile.columns if column.type == "string" and column.kind in kinds}


def _read_toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the expectations {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _formats(schema: DatasetSchema) -> dict[str, str | None]:
    return {feature.name: feature.datetime_format for feature in schema.features}


def _associations(table: pa.Table, schema: DatasetSchema) -> dict[str, Association]:
    target = schema.target
    if target.name not in table.column_names:
        return {}  # several targets
    found = {}
    values = plain_array(table, target.name)
    for feature in schema.features:
        column = plain_array(table, feature.name)
        number = feature.kind in (FeatureKind.NUMERIC, FeatureKind.BOOLEAN)
        if column.type not in PLAIN_TYPES or column.type == pa.null() or feature.kind is FeatureKind.DATETIME:
            continue
        known = association(
            column, values, column_is_number=number, target_is_number=not target.task.is_classification
        )
        if known is not None:
            found[feature.name] = known
    return dict(sorted(found.items(), key=lambda item: -item[1].value))
