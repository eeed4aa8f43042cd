"""Nothing is silent for long: a line where nothing else is said, and no line where something is."""

import io
import re
import sys
import threading
import time

import pytest

from slmlab import progress
from slmlab.progress import bar, never_silent


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and notices when something is written to it."""

    def __init__(self, shown: bool) -> None:
        super().__init__()
        self.shown, self.written = shown, threading.Event()

    def isatty(self) -> bool:
        return self.shown

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


@pytest.mark.parametrize("shown", [False, True])
def test_a_silence_is_broken_by_a_line_that_other_words_replace(
    monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    terminal = Terminal(shown)
    monkeypatch.setattr(progress, "SILENCE", 0.01)
    monkeypatch.setattr(sys, "stderr", terminal)
    with never_silent():
        assert terminal.written.wait(60)
        monkeypatch.setattr(progress, "SILENCE", 1e6)
        print("done", file=sys.stderr)
    assert sys.stderr is terminal
    erase = re.escape(progress.ERASE)
    line = rf"{erase}slmlab: at work for \d+ s" if shown else r"slmlab: at work for \d+ s\n"
    assert re.fullmatch(rf"({line})+{erase if shown else ''}done\n", terminal.getvalue())


def test_whoever_speaks_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "SILENCE", 0.5)
    with never_silent():
        for _ in range(30):
            print("one")
            time.sleep(0.05)
    assert terminal.getvalue() == ""


def test_a_bar_changes_no_item() -> None:
    assert list(bar(range(9), "numbers")) == list(range(9))
    assert list(bar((n for n in "abcde"), "letters", 5)) == list("abcde")
    assert bar(few := [1, 2], "a few") is few
