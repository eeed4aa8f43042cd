"""Nothing is silent for long: a bar shows how far a loop is, and a line says of the rest that it is at work.

The rest are packages that load, git that fetches, and all that is read through a pipe, where no bars are.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
FEW = 3
"""Items from which on a bar is worth its widget in a notebook."""
SILENCE = 4.0
"""Seconds without a word after which one is said."""
BAR: dict[str, Any] = {"delay": 1.0, "leave": False, "disable": None}
"""Of bars: they show after a second, go when they are full, and are drawn on terminals and in notebooks."""
ERASE = "\r\x1b[2K"


def bar(items: Iterable[T], name: str, n: int | None = None) -> Iterable[T]:
    """The same items, with a bar over them (n, where they do not tell how many they are); a few have none."""
    n = len(items) if isinstance(items, Sized) else n
    return items if n is not None and n < FEW else tqdm(items, name, n, **BAR)


class _Noted:
    """A stream, and when it was last written to."""

    def __init__(self, stream: TextIO, pulse: "_Pulse") -> None:
        self.stream, self.pulse = stream, pulse

    def write(self, text: str) -> int:
        """Write, in place of a line of the pulse if one stands there."""
        self.pulse.hear()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Pulse:
    """Says on `stream`, after every silence, how long the work has been going on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.drawn = stream, False
        self.began = self.heard = time.monotonic()
        self.patience = SILENCE
        self.lock, self.ended = threading.RLock(), threading.Event()

    def hear(self) -> None:
        """Something else is about to be written."""
        with self.lock:
            self.heard, self.patience = time.monotonic(), SILENCE
            if self.drawn:
                self.stream.write(ERASE)
                self.stream.flush()
                self.drawn = False

    def beat(self) -> None:
        """Say it whenever it is time, until the end."""
        while not self.ended.wait(max(0.01, self.heard + self.patience - time.monotonic())):
            with self.lock:
                if time.monotonic() < self.heard + self.patience:
                    continue
                line = f"slmlab: at work for {time.monotonic() - self.began:.0f} s"
                self.drawn = self.stream.isatty()
                self.stream.write(f"{ERASE}{line}" if self.drawn else f"{line}\n")
                self.stream.flush()
                self.heard = time.monotonic()
                self.patience *= 1 if self.drawn else 1.5  # a file need not be filled with it


@contextmanager
def never_silent() -> Iterator[None]:
    """Let a line on stderr say so whenever this process has been at work for some seconds without a word."""
    before, pulse = (sys.stdout, sys.stderr), _Pulse(sys.stderr)
    thread = threading.Thread(target=pulse.beat, daemon=True)
    sys.stdout, sys.stderr = (_Noted(stream, pulse) for stream in before)
    thread.start()
    try:
        yield
    finally:
        pulse.ended.set()
        thread.join()
        sys.stdout, sys.stderr = before
        pulse.hear()
