"""From what a user asks for to the extensions of the server. No TensorFlow here.

What needs pandas or Arrow is imported where it is asked for: a server without it starts a second earlier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_serving.server.beyond.access import ApiKeys, RateLimit, read_keys
from tf_serving.server.beyond.routing import STICKY_HEADER, WeightedRouter, parse_weights
from tf_serving.server.extensions import Background, BodyFormat, Extensions, Gate, Hook, Route, Router
from tf_serving.server.status import ConfigurationError

if TYPE_CHECKING:
    from tf_serving.answer_table import AnswerTable


@dataclass(frozen=True, slots=True, kw_only=True)
class BeyondOptions:
    """What TensorFlow Serving does not have; all of it is off by default.

    Attributes:
        route: ``1:90,2:10`` or ``MODEL=1:90,2:10``: weights of versions.
        route_header: Header that keeps a user on one version.
        shadow: ``2`` or ``MODEL=2``: versions that are asked too, compared and counted.
        cache_mb: Megabytes of answers that are remembered; 0 for none.
        cache_seconds: For which an answer is good.
        api_keys: File with NAME and SHA-256 of each key.
        rate_limit: Requests per second of one client; 0 for no limit.
        request_log: Folder for Parquet files of requests and answers.
        request_log_sample: Share of the requests that is logged.
        request_log_hash: Inputs of which only a keyed hash is logged.
        request_log_omit: Inputs that are not logged.
        pages: Whether /v1/models/NAME/schema, /openapi.json and /try/NAME are served.
        table_bodies: Whether CSV and Parquet bodies are taken.
        precomputed: ``FILE.db[#TABLE]`` or a database URL with answers to look up.
        key: Key column of that table.
        feature_tables: ``FILE.db#TABLE:KEY`` or ``URL#TABLE:KEY``: features that requests with keys look up.
    """

    route: tuple[str, ...] = ()
    route_header: str = STICKY_HEADER
    shadow: tuple[str, ...] = ()
    cache_mb: float = 0.0
    cache_seconds: float = 300.0
    api_keys: str = ""
    rate_limit: float = 0.0
    request_log: str = ""
    request_log_sample: float = 1.0
    request_log_hash: tuple[str, ...] = ()
    request_log_omit: tuple[str, ...] = ()
    pages: bool = False
    table_bodies: bool = False
    precomputed: str = ""
    key: str = ""
    feature_tables: tuple[str, ...] = ()


def build_extensions(options: BeyondOptions) -> Extensions:
    """Return the extensions that a user asks for.

    Args:
        options: What is asked for.

    Raises:
        ConfigurationError: An option cannot be used, or needs another one.
    """
    _check_pairs(options)
    gates: list[Gate] = []
    routers: list[Router] = []
    hooks: list[Hook] = []
    routes: list[Route] = []
    background: list[Background] = []
    if options.api_keys:
        gates.append(ApiKeys(read_keys(Path(options.api_keys))))
    if options.rate_limit:
        gates.append(RateLimit(options.rate_limit, by_key=bool(options.api_keys)))
    if options.route:
        weights = [parse_weights(text) for text in options.route]
        routers.append(WeightedRouter(weights, sticky_header=options.route_header))
    if options.cache_mb:
        from tf_serving.server.beyond.cache import ResponseCache

        hooks.append(ResponseCache(options.cache_mb, seconds=options.cache_seconds))
    if options.shadow:
        from tf_serving.server.beyond.shadow import Shadow, parse_shadow

        shadow = Shadow(dict(parse_shadow(text) for text in options.shadow))
        hooks.append(shadow)
        routes += shadow.routes()
        background.append(shadow)
    if options.request_log:
        from tf_serving.server.beyond.request_log import LogSettings, RequestLog

        log = RequestLog(
            LogSettings(
                directory=Path(options.request_log),
                sample=options.request_log_sample,
                hashed=options.request_log_hash,
                omitted=options.request_log_omit,
            )
        )
        hooks.append(log)
        background.append(log)
    if options.precomputed:
        from tf_serving.server.beyond.precomputed import Precomputed

        precomputed = Precomputed(_table(options))
        routes += precomputed.routes()
        background.append(precomputed)
    body_formats: Mapping[str, BodyFormat] = {}
    if options.feature_tables:
        from tf_serving.server.beyond.feature_lookup import CONTENT_TYPE, FeatureLookup

        lookup = FeatureLookup(_feature_tables(options))
        body_formats = {CONTENT_TYPE: lookup.decode}
        background.append(lookup)
    if options.pages:
        from tf_serving.server.beyond.model_pages import page_routes

        routes += page_routes()
    if options.table_bodies:
        from tf_serving.server.beyond.bodies import BODY_FORMATS

        body_formats = {**body_formats, **BODY_FORMATS}
    return Extensions(
        gates=tuple(gates),
        routers=tuple(routers),
        hooks=tuple(hooks),
        routes=tuple(routes),
        body_formats=body_formats,
        background=tuple(background),
    )


def _check_pairs(options: BeyondOptions) -> None:
    defaults = BeyondOptions()
    for main, further in (
        ("route", ("route_header",)),
        ("cache_mb", ("cache_seconds",)),
        ("request_log", ("request_log_sample", "request_log_hash", "request_log_omit")),
        ("precomputed", ("key",)),
    ):
        for name in further:
            if not getattr(options, main) and getattr(options, name) != getattr(defaults, name):
                raise ConfigurationError(f"--{name} has no effect without --{main}")
    if options.precomputed and not options.key:
        raise ConfigurationError("--precomputed needs --key: the column by which answers are looked up")


def _table(options: BeyondOptions) -> AnswerTable:
    from tf_serving.answer_table import AnswerTable, AnswerTableError

    try:
        return AnswerTable(options.precomputed, key=options.key)
    except AnswerTableError as error:
        raise ConfigurationError(str(error)) from error


def _feature_tables(options: BeyondOptions) -> list[AnswerTable]:
    from tf_serving.answer_table import AnswerTable, AnswerTableError

    tables: list[AnswerTable] = []
    try:
        for text in options.feature_tables:
            place, _, key = text.rpartition(":")
            if "#" not in place or not key:
                raise ConfigurationError(f"--feature_tables is PLACE#TABLE:KEY, such as x.db#people:id, not {text!r}")
            tables.append(AnswerTable(place, key=key))
    except (AnswerTableError, ConfigurationError) as error:
        for table in tables:
            table.close()
        raise ConfigurationError(str(error)) from error
    return tables


def option_defaults() -> dict[str, Any]:
    """Return the default of every option by its name, for command lines."""
    return {field.name: getattr(BeyondOptions(), field.name) for field in dataclasses.fields(BeyondOptions)}
