"""Progress of anything that takes long: one line that moves on a terminal, plain lines in a log.

with Progress(len(refs), "entries") as progress:
    for ref in refs:
        progress.update(1, num_bytes=fetch(ref))
"""

from __future__ import annotations

import math
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

LOG_INTERVAL_S = 5.0
TERMINAL_INTERVAL_S = 0.2

# The rate, and with it the time left, is that of the last RATE_WINDOW_S seconds: an average since
# the start would promise too much after a server has slowed down.
RATE_WINDOW_S = 30.0


class Progress:
    """Counts what is done; safe to use from several threads.

    Args:
        total: how many there are; None where that is not known, and no time left is then shown.
        unit: what is counted, plural.
        measure: what the work is measured by where units differ in size, plural: the rate and the
            time left are of these.
        done: how many were done before: they count, but not in the rate.
        stream: where to write; standard error if None. A terminal gets one line that is
            rewritten, anything else a plain line every ``interval_s`` seconds.
        interval_s: seconds between two lines.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        stream: TextIO | None = None,
        interval_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        measure: str | None = None,
        done: int = 0,
    ) -> None:
        self.total, self.unit, self.done = total, unit, done
        self.measure, self.amount = measure, 0
        self.expected: float | None = None
        self.num_bytes = self.failures = 0
        self.fields: dict[str, object] = {}
        self._stream = sys.stderr if stream is None else stream
        self._terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        default = TERMINAL_INTERVAL_S if self._terminal else LOG_INTERVAL_S
        self._interval = default if interval_s is None else interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._start = self._written = clock()
        self._samples: deque[tuple[float, int, int, int]] = deque([(self._start, done, 0, 0)])
        self._width = 0
        self._closed = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(
        self,
        n: int = 1,
        *,
        num_bytes: int = 0,
        failures: int = 0,
        amount: int = 0,
        expected: float | None = None,
        **fields: object,
    ) -> None:
        """``n`` more are done. ``fields`` are shown behind the numbers, by name, until replaced.

        ``num_bytes``, ``failures`` and ``amount``, in ``measure``, add up, and are shown once they
        are above zero; ``expected`` is how much the amount will be in the end, as far as is known.
        """
        with self._lock:
            self.done += n
            self.num_bytes += num_bytes
            self.failures += failures
            self.amount += amount
            self.expected = self.expected if expected is None else expected
            self.fields.update(fields)
            now = self._clock()
            if now - self._samples[-1][0] >= RATE_WINDOW_S / 60 or self.done == self.total:
                self._samples.append((now, self.done, self.num_bytes, self.amount))
                while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_WINDOW_S:
                    self._samples.popleft()
            if now - self._written >= self._interval:
                self._write(now)

    def say(self, sentence: str) -> None:
        """A line of its own, above those of the progress."""
        with self._lock:
            self._stream.write(sentence + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Writes the last line; does nothing the second time.

        Where there was one item and it failed, what its error says is enough.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self.total == self.failures == 1:
                return
            self._write(self._clock())
            if self._terminal:
                self._stream.write("\n")
                self._stream.flush()

    def rate(self) -> float | None:
        """What was done a second in the last ``RATE_WINDOW_S`` seconds; None before there is any.

        In ``measure`` if there is one, else in units.
        """
        then, done, _, amount = self._samples[0]
        seconds = self._clock() - then
        gained = self.done - done if self.measure is None else self.amount - amount
        return gained / seconds if gained > 0 and seconds > 0 else None

    def seconds_left(self) -> float | None:
        """Seconds to the end at the recent rate; None where total or rate is not known."""
        rate = self.rate()
        left: float | None
        if self.measure is None:
            left = None if self.total is None else self.total - self.done
        else:
            left = None if self.expected is None else max(0.0, self.expected - self.amount)
        return None if rate is None or left is None else left / rate

    def line(self) -> str:
        """The state in one line of printable characters."""
        of = "" if self.total is None else f"/{self.total}"
        parts = [f"{self.done}{of} {self.unit}"]
        if self.num_bytes:
            then, _, before, _ = self._samples[0]
            seconds = max(self._clock() - then, 1e-9)
            speed = (self.num_bytes - before) / seconds
            parts.append(f"{format_bytes(self.num_bytes)} ({format_bytes(speed)}/s)")
        if self.amount:
            parts.append(f"{self.amount} {self.measure}")
        rate = self.rate()
        if rate is not None:
            parts.append(f"{rate:.3g} {self.measure or self.unit}/s")
        if self.failures:
            parts.append(f"{self.failures} failed")
        parts += [f"{name} {_format(value)}" for name, value in self.fields.items()]
        if self._closed or self.done == self.total:
            parts.append(f"took {format_seconds(self._clock() - self._start)}")
        elif self.total is not None:
            left = self.seconds_left()
            parts.append("time left unknown" if left is None else f"{format_seconds(left)} left")
        return ", ".join(parts)

    def _write(self, now: float) -> None:
        self._written = now
        line = self.line()
        if self._terminal:
            # A line that wraps could not be rewritten; blanks wipe what a longer one left behind.
            line = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def _format(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def format_bytes(number: float) -> str:
    """1536 as "1.54 kB"; powers of ten, as disks and networks count."""
    if number < 1000:
        return f"{number:.0f} B"
    power = min(int(math.log10(number) / 3), 4)
    if number / 1000**power >= 999.5 and power < 4:
        power += 1  # "1 MB", not "1e+03 kB"
    return f"{number / 1000**power:.3g} {'kMGT'[power - 1]}B"


def format_seconds(seconds: float) -> str:
    """3725 as "1 h 02 min"."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600:02d} h"
