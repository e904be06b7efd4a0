"""Observers are told everything and can harm nothing."""

from __future__ import annotations

from xtuner_core.engine.observers import Observers, Watcher
from xtuner_core.engine.stopwatch import Stopwatch


class Diary:
    def __init__(self, fails_in=None):
        self.heard, self.fails_in = [], fails_in

    def _hear(self, event, news):
        self.heard.append((event, news))
        if event == self.fails_in:
            raise ValueError("no more ink")

    def on_start(self, news):
        self._hear("on_start", news)

    def on_step(self, news):
        self._hear("on_step", news)

    def on_end(self, news):
        self._hear("on_end", news)


def tell(*diaries):
    reports = []
    watchers = [
        Watcher(entry=f"observer.diary{i}", plugin="diaries", observer=diary) for i, diary in enumerate(diaries)
    ]
    stopwatch = Stopwatch()
    observers = Observers(watchers, report=lambda *failure: reports.append(failure), stopwatch=stopwatch)
    observers.on_start("start")
    observers.on_step("first")
    observers.on_step("second")
    observers.on_end("end")
    observers.on_end("end again")
    return observers, reports, stopwatch


def test_everyone_hears_everything_in_order_and_the_end_once():
    diary = Diary()
    observers, reports, stopwatch = tell(diary, Diary())
    assert diary.heard == [
        ("on_start", "start"),
        ("on_step", "first"),
        ("on_step", "second"),
        ("on_end", "end"),
    ]
    assert observers.failures == ()
    assert reports == []
    assert stopwatch.seconds > 0


def test_one_that_raises_is_named_counted_and_told_nothing_more():
    broken, diary = Diary("on_step"), Diary()
    observers, reports, _ = tell(broken, diary)
    assert [event for event, _ in broken.heard] == ["on_start", "on_step"]
    assert len(diary.heard) == 4
    (failure,) = observers.failures
    assert str(failure) == (
        "observer.diary0 of plugin 'diaries' is disabled: it raised in on_step: ValueError: no more ink"
    )
    ((reported, error),) = reports
    assert reported == failure
    assert isinstance(error, ValueError)


def test_one_that_lacks_a_method_is_disabled_like_one_that_raises():
    observers, _, _ = tell(object())
    assert [failure.event for failure in observers.failures] == ["on_start"]
