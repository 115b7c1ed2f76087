"""Progress: what a terminal shows, what a log holds, and how honest the time left is."""

import io
import itertools
import re
import threading

import pytest

from qfitlatent.base.progress import Progress, format_bytes, format_seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(stream, clock, steps, total=100, **options):
    """``steps`` of (seconds, n, fields)."""
    progress = Progress(total, "entries", stream, clock=clock, **options)
    for seconds, n, fields in steps:
        clock.now += seconds
        progress.update(n, **fields)
    return progress


def test_a_log_has_plain_lines_every_few_seconds():
    stream, clock = io.StringIO(), Clock()
    run(stream, clock, [(0.1, 1, {"num_bytes": 10_000})] * 100).close()
    lines = stream.getvalue().splitlines()
    assert stream.getvalue().isprintable() is False  # newlines, and nothing else:
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 2  # after five seconds, and at the end
    assert re.fullmatch(r"\d\d/100 entries, \d+ kB \(100 kB/s\), 10 entries/s, 5 s left", lines[0])
    assert lines[1] == "100/100 entries, 1 MB (100 kB/s), 10 entries/s, took 10 s"


def test_a_terminal_has_one_line_that_is_rewritten():
    stream, clock = Terminal(), Clock()
    progress = run(stream, clock, [(1.0, 1, {"failures": 1}), (1.0, 1, {})], total=3)
    clock.now += 1.0
    progress.update(1)
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    parts = text.rstrip("\n").split("\r")[1:]
    assert parts[0].startswith("1/3 entries")
    assert "1 failed" in parts[0]
    # No rest of a longer line stays on the screen.
    assert all(len(b) >= len(a.rstrip()) for a, b in itertools.pairwise(parts))


def test_a_terminal_line_fits_the_terminal(monkeypatch):
    """A line that wraps could not be rewritten."""
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    run(stream, Clock(), [(1.0, 1, {"field": "x" * 100})]).close()
    assert max(len(part) for part in stream.getvalue().rstrip("\n").split("\r")) == 19


def test_time_left_follows_the_recent_rate():
    clock = Clock()
    fast = [(0.1, 1, {})] * 100
    slow = [(2.0, 1, {})] * 20
    progress = run(io.StringIO(), clock, fast, total=220)
    assert progress.seconds_left() == pytest.approx(12, rel=0.1)
    for seconds, n, _ in slow:
        clock.now += seconds
        progress.update(n)
    # The average since the start would promise 42 s.
    assert progress.seconds_left() == pytest.approx(200, rel=0.1)


def test_time_left_grows_while_nothing_happens():
    clock = Clock()
    progress = run(io.StringIO(), clock, [(1.0, 1, {})] * 10, total=20)
    before = progress.seconds_left()
    clock.now += 60
    assert progress.seconds_left() > 5 * before


def test_unknown_rate_and_total():
    stream, clock = io.StringIO(), Clock()
    progress = run(stream, clock, [(6.0, 0, {})])
    assert progress.line() == "0/100 entries, time left unknown"
    assert progress.seconds_left() is None
    progress = run(stream, clock, [(1.0, 5, {})], total=None)
    assert progress.line() == "5 entries, 5 entries/s"
    assert progress.seconds_left() is None


def test_fields_stay_until_replaced_and_cannot_break_the_line():
    progress = run(io.StringIO(), Clock(), [(1.0, 1, {"loss": 1.23456}), (1.0, 1, {"at": "a\nb"})])
    assert "loss 1.235, at a b" in progress.line()


def test_close_twice_writes_once():
    stream = io.StringIO()
    with Progress(1, "steps", stream) as progress:
        progress.update()
        progress.close()
    assert len(stream.getvalue().splitlines()) == 1


def test_threads_lose_nothing():
    progress = Progress(4000, "entries", io.StringIO(), interval_s=0.0)

    def work():
        for _ in range(1000):
            progress.update(num_bytes=2, failures=1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (progress.done, progress.num_bytes, progress.failures) == (4000, 8000, 4000)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.54 kB"), (999_999, "1 MB"), (2.5e12, "2.5 TB")],
)
def test_bytes(number, text):
    assert format_bytes(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3725, "1 h 02 min"), (90000, "1 d 01 h")],
)
def test_seconds(number, text):
    assert format_seconds(number) == text


def test_the_rate_and_the_time_left_are_those_of_the_measure():
    """Ten small files of 100 residues a second, then large ones: files a second would mislead."""
    clock = Clock()
    progress = Progress(12, "files", io.StringIO(), clock=clock, measure="residues")
    for _ in range(10):
        clock.now += 1.0
        progress.update(1, amount=100, expected=9000)
    assert progress.rate() == pytest.approx(100, rel=0.05)
    assert progress.seconds_left() == pytest.approx(80, rel=0.05)
    assert "10/12 files, 1000 residues, 100 residues/s, 1 min 20 s left" in progress.line()


def test_what_was_done_before_counts_but_not_in_the_rate():
    clock = Clock()
    progress = Progress(110, "files", io.StringIO(), clock=clock, done=100)
    for _ in range(5):
        clock.now += 1.0
        progress.update(1)
    assert progress.done == 105
    assert progress.rate() == pytest.approx(1.0, rel=0.01)
    assert progress.seconds_left() == pytest.approx(5, rel=0.01)


def test_a_sentence_stands_on_a_line_of_its_own():
    stream = io.StringIO()
    progress = Progress(1, "files", stream)
    progress.say("Two files.")
    progress.close()
    assert stream.getvalue().startswith("Two files.\n0/1 files")
