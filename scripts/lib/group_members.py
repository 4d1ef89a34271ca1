"""Consumers of Kafka's Java client as members of a group, and what their own callbacks say of who owns which partition."""

import queue
import subprocess
import threading
import time

import bench_host as host
import install
import kafka
from process import Failure, last_line, stop

JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx512m")
# Words that tell of a change of ownership.
GIVEN, TAKEN = ("assigned",), ("revoked", "lost")


class Ownership:
    """Who owns what. Times are microseconds since 1970."""

    def __init__(self, partitions):
        self.partitions = partitions
        self.owned = {}
        self.count = [0] * partitions
        self.balanced_us = None
        self.told_us = None
        self.latest_us = 0
        self.callbacks = 0

    def begin(self, members, at_us):
        """From now on these members are to own everything. Those who are no longer among them own nothing."""
        for gone in set(self.owned) - set(members):
            for partition in self.owned.pop(gone):
                self.count[partition] -= 1
        for member in members:
            self.owned.setdefault(member, set())
        self.balanced_us, self.told_us, self.latest_us, self.callbacks = None, None, at_us, 0

    def take(self, word, at_us, member, partitions):
        """A member's callback. What comes from one that is gone counts no more."""
        if member not in self.owned or word not in GIVEN + TAKEN:
            return
        self.callbacks += 1
        if self.told_us is None:
            self.told_us = at_us
        self.latest_us = max(self.latest_us, at_us)
        owned = self.owned[member]
        for partition in partitions:
            if (word in GIVEN) != (partition in owned):
                self.count[partition] += 1 if word in GIVEN else -1
        if word in GIVEN:
            owned.update(partitions)
        else:
            owned.difference_update(partitions)
        if not self.is_balanced():
            self.balanced_us = None
        elif self.balanced_us is None:
            self.balanced_us = self.latest_us

    def is_balanced(self):
        """Every partition has one owner, and no member has more than one partition more than another."""
        if not self.owned or any(count != 1 for count in self.count):
            return False
        sizes = [len(owned) for owned in self.owned.values()]
        return max(sizes) - min(sizes) <= 1

    def describe(self):
        """What is missing, in words."""
        unowned = sum(count == 0 for count in self.count)
        twice = sum(count > 1 for count in self.count)
        sizes = [len(owned) for owned in self.owned.values()] or [0]
        return (
            f"{unowned} of {self.partitions} partitions have no owner, {twice} have several; "
            f"{len(self.owned)} members have {min(sizes)} to {max(sizes)} partitions"
        )


def parse(line):
    """(word, microseconds, member, partitions or text) of a line of the Java program."""
    word, at_us, member, rest = line.split(" ", 3)
    if word in GIVEN + TAKEN:
        rest = [int(number) for number in rest.split(",") if number]
    return word, int(at_us), int(member), rest


def now_us():
    """As the Java program tells time."""
    return time.time_ns() // 1000


class Crew:
    """One process with members, on its cores. What they tell goes into a queue that several crews share."""

    def __init__(self, cores, log, told):
        self.log, self.told = log, told
        command = kafka.command("GroupMembers", jvm=JVM, classes=install.group_members())
        with open(log, "ab") as sink, host.pinned(cores):
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, text=True,
                start_new_session=True,
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.told.put((self, *parse(line.rstrip("\n"))))
        self.told.put((self, "gone", now_us(), -1, ""))

    def command(self, *words):
        """Gives a command."""
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise Failure(f"the consumers' process is gone: {last_line(self.log)}") from None

    def kill(self):
        """kill -9. Returns when, in microseconds."""
        at_us = now_us()
        self.process.kill()
        self.process.wait()
        return at_us

    def stop(self):
        """Ends the process."""
        stop(self.process, grace_s=2)


class Group:
    """A group's members, over several crews."""

    def __init__(self, told, partitions):
        self.told, self.ownership = told, Ownership(partitions)
        self.expected_gone = set()

    def wait_for(self, word, crew, limit_s=60):
        """Waits until a crew says this. Returns when, in microseconds."""
        deadline = time.monotonic() + limit_s
        while True:
            event = self._next(deadline)
            if event is None:
                raise Failure(f"{word!r} was not heard within {limit_s} s")
            if event[0] is crew and event[1] == word:
                return event[2]

    def balance(self, settle_s, limit_s):
        """Waits until all partitions are owned once, and stay so for `settle_s`. Returns when that came about, in
        microseconds."""
        deadline = time.monotonic() + limit_s
        while True:
            balanced = self.ownership.balanced_us
            if balanced is not None and now_us() - balanced > settle_s * 1e6:
                return balanced
            if self._next(min(deadline, time.monotonic() + 0.05)) is None and time.monotonic() > deadline:
                raise Failure(f"no balance within {limit_s} s: {self.ownership.describe()}")

    def _next(self, deadline):
        """The next event, taken in; None at the deadline."""
        try:
            event = self.told.get(timeout=max(0.001, deadline - time.monotonic()))
        except queue.Empty:
            return None
        crew, word, at_us, member, rest = event
        if word == "failed":
            raise Failure(f"member {member} failed: {rest}")
        if word == "gone" and crew not in self.expected_gone:
            raise Failure(f"the consumers' process ended: {last_line(crew.log)}")
        self.ownership.take(word, at_us, member, rest)
        return event
