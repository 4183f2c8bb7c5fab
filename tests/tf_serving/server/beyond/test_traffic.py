"""Routing, keys, rates, cache and shadow: rules that need no model."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tf_serving.server.beyond import access, shadow
from tf_serving.server.beyond.access import ApiKeys, RateLimit, key_of, read_keys
from tf_serving.server.beyond.cache import ResponseCache
from tf_serving.server.beyond.routing import WeightedRouter, parse_weights
from tf_serving.server.beyond.shadow import Shadow, parse_shadow
from tf_serving.server.extensions import Arrays, Call
from tf_serving.server.status import Code, ConfigurationError, ServingError

KEYS = {"alice": sha256(b"wonder").hexdigest(), "bob": sha256(b"builder").hexdigest()}


def call(inputs: Arrays | None = None, **changes: Any) -> Call:
    values: dict[str, Any] = {
        "model": "m", "version": 1, "signature": "serving_default", "method": "predict", "protocol": "REST",
        "inputs": {"x": np.ones(2, np.float32)} if inputs is None else inputs, "outputs": ("y",), "headers": {},
        "request_id": "r",
    }  # fmt: skip
    return Call(**{**values, **changes})


def texts(*values: bytes) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# Routing.


def test_shares_follow_the_weights_and_users_stay() -> None:
    router = WeightedRouter([parse_weights("1:90, 2:10")])
    chosen = {user: router.choose("m", [2, 1], {"x-session-id": str(user)}) for user in range(4000)}
    assert Counter(chosen.values())[2] == pytest.approx(400, abs=80)
    assert all(router.choose("m", [2, 1], {"x-session-id": str(user)}) == chosen[user] for user in range(200))
    anybody = Counter(router.choose("m", [2, 1], {}) for _ in range(4000))
    assert anybody[2] == pytest.approx(400, abs=80)


def test_only_those_move_who_have_to() -> None:
    router = WeightedRouter([parse_weights("1:50,2:30,3:20")])
    headers = [{"x-session-id": str(user)} for user in range(1000)]
    before = [router.choose("m", [3, 2, 1], header) for header in headers]
    after = [router.choose("m", [2, 1], header) for header in headers]
    assert {new for old, new in zip(before, after, strict=True) if old == 3} == {1, 2}
    assert all(new == old for old, new in zip(before, after, strict=True) if old != 3)


def test_models_and_versions_without_a_weight_are_left_alone() -> None:
    router = WeightedRouter([parse_weights("a=1:1,2:0")])
    assert router.choose("b", [2, 1], {}) is None
    assert router.choose("a", [3, 2], {}) is None
    assert {router.choose("a", [3, 2, 1], {}) for _ in range(50)} == {1}


@pytest.mark.parametrize("text", ["", "1", "1:", "1:x", "1:9,", "a/b=1:1", "1:1.2.3", "v1:1", "1:90;2:10"])
def test_weights_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected VERSION:WEIGHT,... such as 1:90,2:10"):
        parse_weights(text)


def test_weights_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="a version is named twice"):
        parse_weights("1:1,1:2")
    with pytest.raises(ConfigurationError, match="expected a weight above zero"):
        parse_weights("1:0,2:0")
    with pytest.raises(ConfigurationError, match="--route is given twice for one model"):
        WeightedRouter([parse_weights("1:1"), parse_weights("2:1")])


# Keys.


@pytest.mark.parametrize("headers", [{"x-api-key": "wonder"}, {"authorization": "Bearer builder"}])
def test_a_known_key_is_let_in(headers: dict[str, str]) -> None:
    ApiKeys(KEYS).admit(headers, path="/", peer="p")


@pytest.mark.parametrize(
    ("headers", "code", "message"),
    [
        ({}, Code.UNAUTHENTICATED, "Missing API key: send it as x-api-key"),
        ({"authorization": "Basic builder"}, Code.UNAUTHENTICATED, "Missing API key"),
        ({"x-api-key": "wonde"}, Code.PERMISSION_DENIED, "Unknown API key"),
        ({"x-api-key": KEYS["bob"]}, Code.PERMISSION_DENIED, "Unknown API key"),
        ({"x-api-key": "\udcff\u00e9"}, Code.PERMISSION_DENIED, "Unknown API key"),
    ],
)
def test_other_keys_are_refused(headers: dict[str, str], code: Code, message: str) -> None:
    with pytest.raises(ServingError, match=message) as raised:
        ApiKeys(KEYS).admit(headers, path="/", peer="p")
    assert raised.value.code is code


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# who may call\nalice {KEYS['alice']}\n\nbob\t{KEYS['bob'].upper()} # the builder\n")
    assert read_keys(path) == KEYS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("alice wonder", "line 1: expected NAME and the SHA-256 of a key"),
        (f"\na {KEYS['bob']}\na {KEYS['bob']}", "line 3: 'a' is there twice"),
        ("# nobody", "holds no API key"),
    ],
)
def test_bad_key_files_are_refused_without_showing_a_key(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_keys(path)
    assert "wonder" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="Cannot read the API keys in"):
        read_keys(tmp_path / "absent")


# Rates.


def test_a_client_may_burst_and_then_has_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(access, "monotonic", lambda: now)
    limit = RateLimit(10, burst=5)
    for port in range(5):
        limit.admit({}, path="/", peer=f"127.0.0.1:{port}")
    with pytest.raises(ServingError, match="More than 10 requests per second; try again in 1 s") as raised:
        limit.admit({}, path="/", peer="127.0.0.1:9")
    assert (raised.value.code, raised.value.retry_after) == (Code.RESOURCE_EXHAUSTED, 1)
    limit.admit({}, path="/", peer="127.0.0.2:1")
    now += 0.11
    limit.admit({}, path="/", peer="127.0.0.1:1")
    with pytest.raises(ServingError):
        limit.admit({}, path="/", peer="ipv4:127.0.0.1:1")


def test_clients_are_told_apart_by_their_addresses_of_version_6() -> None:
    limit = RateLimit(0.001, burst=1)
    for peer in ("2001:db8::1", "2001:db8::2", "::1"):
        limit.admit({}, path="/", peer=peer)
    for peer in ("2001:db8::1", "ipv6:[2001:db8::2]:5000", "ipv6:%5B::1%5D:5001"):
        with pytest.raises(ServingError, match="try again in"):
            limit.admit({}, path="/", peer=peer)


def test_clients_are_told_apart_by_their_keys() -> None:
    limit = RateLimit(0.001, burst=1, by_key=True)
    limit.admit({"x-api-key": "a"}, path="/", peer="p")
    limit.admit({"x-api-key": "b"}, path="/", peer="p")
    with pytest.raises(ServingError, match="try again in"):
        limit.admit({"authorization": "Bearer a"}, path="/", peer="q")


def test_the_memory_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_CLIENTS", 10)
    limit = RateLimit(1)
    for number in range(100):
        limit.admit({}, path="/", peer=f"host{number}")
    assert len(limit._buckets) == 10


@pytest.mark.parametrize("rate", [-1.0, 0.0, float("inf"), float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="expected requests per second above zero"):
        RateLimit(rate)


def test_a_key_is_found_in_either_header() -> None:
    assert key_of({"x-api-key": "a", "authorization": "Bearer b"}) == "a"
    assert key_of({"authorization": "bearer  b "}) == "b"
    assert key_of({}) == ""


# The cache.


def asked(cache: ResponseCache, request: Call, answer: float) -> float:
    """What the user gets, where the model would say `answer`."""
    outputs = cache.before(request)
    given = {"y": np.array([answer])} if outputs is None else outputs
    cache.after(request, given, error=None, seconds=0.0)
    return float(given["y"][0])


def test_equal_requests_get_the_first_answer() -> None:
    cache = ResponseCache(1)
    assert [asked(cache, call(), answer) for answer in (1.0, 2.0)] == [1.0, 1.0]
    assert (cache.hits, cache.misses) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        call({"x": np.array([1, 2], np.float32)}),
        call({"x": np.ones(2, np.float64)}),
        call({"x": np.ones((2, 1), np.float32)}),
        call({"z": np.ones(2, np.float32)}),
        call(version=2),
        call(loading=2),  # the files of the version were replaced
        call(model="n"),
        call(signature="s"),
        call(method="regress"),
        call(outputs=("y", "z")),
    ],
)
def test_other_requests_get_their_own_answer(other: Call) -> None:
    cache = ResponseCache(1)
    assert asked(cache, call(), 1.0) == 1.0
    assert asked(cache, other, 2.0) == 2.0


def test_texts_are_told_apart_by_their_ends() -> None:
    cache = ResponseCache(1)
    assert asked(cache, call({"x": texts(b"ab", b"c")}), 1.0) == 1.0
    assert asked(cache, call({"x": texts(b"a", b"bc")}), 2.0) == 2.0
    assert asked(cache, call({"x": texts(b"ab", b"c")}), 3.0) == 1.0


def test_answers_grow_old() -> None:
    cache = ResponseCache(1, seconds=0.02)
    assert asked(cache, call(), 1.0) == 1.0
    time.sleep(0.03)
    assert asked(cache, call(), 2.0) == 2.0


def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    cache = ResponseCache(0.05)
    for number in range(1000):
        asked(cache, call({"x": np.array([number])}), float(number))
        assert cache.size <= 0.05 * 2**20
        assert asked(cache, call({"x": np.array([0])}), -1.0) == 0.0  # used again and again
    assert asked(cache, call({"x": np.array([1])}), -1.0) == -1.0


def test_errors_large_requests_and_large_answers_are_not_kept() -> None:
    cache = ResponseCache(0.1)
    cache.before(request := call())
    cache.after(request, None, error=ServingError(Code.INTERNAL, "no"), seconds=0.0)
    large = call({"x": np.zeros(100_000)})
    assert [asked(cache, large, answer) for answer in (1.0, 2.0)] == [1.0, 2.0]
    cache.before(request := call())
    cache.after(request, {"y": np.zeros(50_000)}, error=None, seconds=0.0)
    assert cache.size == 0


def test_many_threads_share_the_cache() -> None:
    cache = ResponseCache(0.02)
    wrong: list[float] = []

    def work() -> None:
        for number in list(range(50)) * 10:
            answer = asked(cache, call({"x": np.array([number])}), float(number))
            wrong.extend([answer] if answer != number else [])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.size == sum(size for _, size, _ in cache._entries.values())


def test_a_cache_without_room_or_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected both above zero"):
        ResponseCache(0)
    with pytest.raises(ConfigurationError, match="--cache_mb is 1 for 0 s"):
        ResponseCache(1, seconds=0)


# The shadow.


class Versions:
    """Stands where the server's models are: version 2 adds a little, version 3 much, version 4 fails."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.hold = hold

    def predict(self, model: str, version: int, *, signature: str, inputs: Arrays) -> Arrays:
        del model, signature
        if self.hold is not None:
            self.hold.wait(5)
        if version == 4:
            raise ServingError(Code.INTERNAL, "broken")
        added = {2: 1e-5, 3: np.array([0.0, 0.5])}[version]
        return {"y": inputs["x"] + np.asarray(added, np.float32), "label": texts(b"a", b"b")}


def shadowed(versions: Mapping[str, int], *, times: int = 3, models: Any = None, **changes: Any) -> Shadow:
    hook = Shadow(versions)
    hook.start(models or Versions())
    for _ in range(times):
        request = call(**changes)
        assert hook.before(request) is None
        hook.after(request, {"y": request.inputs["x"], "label": texts(b"a", b"b")}, error=None, seconds=0.0)
    hook.close()
    return hook


def test_agreeing_and_differing_answers_are_counted() -> None:
    counts = shadowed({"": 2}).counts()["m"]
    assert (counts.agreed, counts.differed, counts.rows, counts.rows_differed) == (3, 0, 6, 0)
    counts = shadowed({"m": 3}).counts()["m"]
    assert (counts.agreed, counts.differed, counts.rows, counts.rows_differed) == (0, 3, 6, 3)
    assert counts.largest_difference == pytest.approx(0.5)
    assert shadowed({"m": 4}).counts()["m"].failed == 3


def test_the_shadow_is_not_asked_about_itself_or_other_models() -> None:
    assert not shadowed({"": 2}, version=2).counts()
    assert not shadowed({"other": 2}).counts()


def test_a_full_queue_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "QUEUE_REQUESTS", 2)
    hold = threading.Event()
    timer = threading.Timer(0.2, hold.set)
    timer.start()
    counts = shadowed({"": 2}, times=20, models=Versions(hold)).counts()["m"]
    timer.join()
    assert counts.dropped >= 17
    assert counts.dropped + counts.agreed == 20


@pytest.mark.parametrize(("text", "found"), [("2", ("", 2)), ("adult=3", ("adult", 3))])
def test_shadow_versions_are_read(text: str, found: tuple[str, int]) -> None:
    assert parse_shadow(text) == found


@pytest.mark.parametrize("text", ["", "x", "a/b=1", "a=", "-1"])
def test_shadow_versions_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a version such as 2, or MODEL=2"):
        parse_shadow(text)
