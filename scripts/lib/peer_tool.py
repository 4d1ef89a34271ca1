"""A load tool that prints a line an interval: what it says between warm-up and end. And when a rate has become steady."""

import queue
import threading
import time

import bench_host as host
from process import Failure, last_line, start, stop

# Beyond what a window takes: a tool that prints other lines for ever is no result.
SLACK_S = 90
# Several seconds for a JVM to start and to connect.
FIRST_LINE_LIMIT_S = 60
# A rate is steady when it differs from the one before by at most this share of it; each tells of so many seconds at least.
STEADY_SHARE = 0.1
STEP_S = 5
# Longest that a warm-up waits for it.
WARM_UP_LIMIT_S = 60


class Steadiness:
    """The rates of successive steps, and whether the last two are about the same."""

    def __init__(self):
        self.rates = []

    def add(self, rate):
        """Takes the next step's rate; True when it is steady."""
        self.rates.append(rate)
        return self.steady

    @property
    def steady(self):
        """Whether the last two steps are about the same."""
        if len(self.rates) < 2:
            return False
        before, last = self.rates[-2:]
        return before > 0 and abs(last - before) <= STEADY_SHARE * before


def warm(step, limit_s=WARM_UP_LIMIT_S, clock=time.monotonic):
    """Calls `step()`, a rate each, until it is steady or `limit_s` have gone by; returns its Steadiness."""
    seen, ends = Steadiness(), clock() + limit_s
    while not seen.add(step()) and clock() < ends:
        pass
    return seen


class Lines:
    """A running tool and the lines that it has printed, each with its time."""

    def __init__(self, command, log, cores, env=None):
        self.log = log
        with host.pinned(cores):
            self.process = start(command, log, env=env, stdout=-1)
        self._queue = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with open(self.log, "ab") as sink:
            for line in self.process.stdout:
                sink.write(line)
                sink.flush()
                self._queue.put((time.monotonic(), line.decode(errors="replace")))
        self._queue.put(None)

    def next(self, limit_s):
        """(time, line) of the next line, or None at the end. Failure past the limit."""
        try:
            return self._queue.get(timeout=limit_s)
        except queue.Empty:
            raise Failure(f"the tool printed nothing for {limit_s:g} s (log: {self.log})") from None

    def stop(self):
        """Ends the tool."""
        code = stop(self.process, grace_s=5)
        self._reader.join(10)
        self.process.stdout.close()
        return code


def rate(command, log, cores, pattern, warmup_s, seconds, interval_s, env=None, until_steady=False):
    """Mean of what `pattern` finds (its first group, messages a second) in the lines of a window: lines whose interval began at
    least `warmup_s` after the first line, until their intervals make up `seconds`. With `until_steady` the window begins after two
    successive lines that say about the same, or a minute of others. The tool is stopped at the end."""
    tool = Lines(command, log, cores, env)
    values, first = [], None
    seen = Steadiness() if until_steady else None
    limit_s = warmup_s + (WARM_UP_LIMIT_S if until_steady else 0)
    deadline = time.monotonic() + limit_s + seconds + 3 * interval_s + SLACK_S
    try:
        while len(values) * interval_s < seconds - 0.01:
            found = tool.next(FIRST_LINE_LIMIT_S if first is None else 10 + 3 * interval_s)
            if found is None:
                raise Failure(f"the tool ended by itself: {last_line(log)}")
            at, line = found
            if at > deadline:
                raise Failure(f"the tool did not come to a rate: {last_line(log)}")
            match = pattern.search(line)
            if not match:
                continue
            first = at if first is None else first
            # A line tells of the interval before it; the first one holds the start.
            if at - first < warmup_s + interval_s - 0.3:
                continue
            value = float(match.group(1).replace(",", ""))
            if seen and not seen.steady and at - first < limit_s:
                seen.add(value)
            else:
                values.append(value)
    finally:
        tool.stop()
    return sum(values) / len(values)
