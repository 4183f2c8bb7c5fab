from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app import view as view_module
from app.search.trial import Completed, Ended, Fact, Failed, History, Paused, Pruned, Reported, Started, Suggestion
from app.search_loop import SearchView
from app.view import ConsoleView, SilentView, counts


def state(
    *facts: Fact, best: float | None = None, left: float = math.inf, max_trials: int | None = None
) -> SearchView:
    return SearchView(history=History().applied(facts), best=best, seconds_left=left, max_trials=max_trials)


def begun(*numbers: int) -> list[Fact]:
    return [Started(Suggestion(number, {}, 0, 9)) for number in numbers]


def printed(show: Callable[[ConsoleView], None], *, width: int = 80, terminal: bool = False) -> str:
    file = io.StringIO()
    show(ConsoleView(Console(file=file, width=width, force_terminal=terminal, color_system=None)))
    return file.getvalue()


def live(seen: SearchView, *, seconds: float = math.inf, width: int = 80) -> list[str]:
    """The last frame of the live panel, without the codes that move the cursor."""

    def search(view: ConsoleView) -> None:
        with view.searching(seconds=seconds) as show:
            show(seen)

    text = printed(search, width=width, terminal=True)
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "").split("╭")
    return ("╭" + frames[-1]).splitlines()


SEVERAL = (
    *begun(0, 1, 2, 3, 4),
    Reported(0, 1, 0.5),
    Ended(0, Completed(0.5)),
    Ended(1, Failed("no memory")),
    Ended(2, Paused(3)),
    Ended(3, Pruned(2)),
    Reported(4, 1, 0.4),
    Reported(4, 2, 0.4),
)


def test_counts_name_every_state_that_occurs() -> None:
    assert counts(state(*SEVERAL)) == "1 done, 1 running, 1 paused, 1 pruned, 1 failed"
    assert counts(state(*SEVERAL, max_trials=20)).startswith("1 of 20 done")
    assert counts(state()) == "0 done, 0 running, 0 failed"


def test_what_is_said_is_text_and_not_markup() -> None:
    line = "a [bold]name[/bold] :smile: 3 [/x]"
    assert printed(lambda view: view.say(line)) == line + "\n"


def test_a_long_line_is_not_cut() -> None:
    line = "tamiz predict " + "x" * 200
    assert printed(lambda view: view.say(line)) == line + "\n"
    uncut = Text(line, no_wrap=True, overflow="ignore")
    assert printed(lambda view: view.show(uncut)) == line + "\n"


def test_a_table_is_shown() -> None:
    table = Table("name")
    table.add_row("value")
    assert "value" in printed(lambda view: view.show(table))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_live_panel_fits_its_terminal(width: int) -> None:
    lines = live(state(*SEVERAL, best=0.81234, left=30.0), seconds=90.0, width=width)
    assert all(len(line) == width for line in lines if line.startswith(("╭", "│", "╰")))
    assert not any("…" in line for line in lines)


def test_the_live_panel_tells_counts_best_trial_and_time() -> None:
    text = "\n".join(live(state(*SEVERAL, best=0.81234, left=30.0), seconds=90.0))
    for part in ("1 done, 1 running", "0.8123", "trial 4: epoch 2 of 9", "30 s left of 1 min 30 s", "Ctrl-C"):
        assert part in text


def test_the_live_panel_begins_without_a_best_value() -> None:
    text = "\n".join(live(state(max_trials=4)))
    assert "none yet" in text
    assert "left" not in text


def test_time_that_is_used_up_is_not_negative() -> None:
    assert "0.0 s left of 1 min 30 s" in "\n".join(live(state(left=-12.0), seconds=90.0))


def lines_of(states: list[SearchView]) -> list[str]:
    def search(view: ConsoleView) -> None:
        with view.searching(seconds=60.0) as show:
            for one in states:
                show(one)

    return printed(search).splitlines()


def test_a_log_gets_a_line_for_each_new_best_and_none_for_more_of_the_same() -> None:
    seen = [state(*begun(0), left=50.0)] * 3
    seen += [state(*begun(0, 1), best=0.7, left=40.0)] * 3
    seen += [state(*begun(0, 1, 2), best=0.8, left=30.0)] * 3
    assert lines_of(seen) == [
        "  0 done, 1 running, 0 failed; best none yet; 50 s left",
        "  0 done, 2 running, 0 failed; best 0.7; 40 s left",
        "  0 done, 3 running, 0 failed; best 0.8; 30 s left",
    ]


def test_a_log_gets_a_line_now_and_then_without_a_new_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(view_module, "SHARE_BETWEEN_LINES", 0.0)
    assert len(lines_of([state(*begun(0))] * 3)) == 3


def test_a_log_of_a_long_search_gets_lines_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 5)
    monkeypatch.setattr(view_module.time, "monotonic", lambda: float(next(clock)))
    lines = lines_of([state(*begun(0))] * 7_000)  # about ten hours
    assert 30 < len(lines) < 200


def test_a_log_holds_no_control_codes() -> None:
    assert "\x1b" not in "".join(lines_of([state(*begun(0)), state(*SEVERAL, best=0.5)]))


def test_a_silent_view_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    view = SilentView()
    view.say("a line")
    view.show(Text("a text"))
    with view.searching(seconds=9.0) as show:
        show(state(*SEVERAL))
    assert capsys.readouterr() == ("", "")
