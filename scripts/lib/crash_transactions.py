"""scripts/crash --transactions: copiers that read, write and commit offsets in transactions, while broker and copiers are
killed. What is committed must hold each record once and in order, and the group's offsets must be where the records are."""

import time

import copiers
import install
from broker import KafkaBroker, RinglogBroker
from clients import python_program
from process import Failure, LeftOut, last_line, run

PARTITIONS = 4
# For each partition and round.
RECORDS = 250
# How often each kind is picked: a JVM takes seconds to start.
WEIGHTS = {"franz-go": 5, "confluent": 3, "kafka": 2}
ROUND_LIMIT_S = 90
# Who says nothing for so long is taken to hang, and starts again; the round's line tells.
STILL_S = 15
# From the moment that a copier asks for the end of a transaction, a kill comes within this time.
AFTER_END_S = 0.008
SETTINGS = {"group.initial.rebalance.delay.ms": "0"}


class Transactions:
    """The rounds and what they need."""

    def __init__(self, args, work, dice, create):
        self.args, self.work, self.dice, self.create = args, work, dice, create
        self.log = work / "log"
        self.broker = (RinglogBroker if args.broker == "ringlog" else KafkaBroker)(work / "broker", args.shards, SETTINGS)
        self.copiers, self.lives, self.lived, self.deeds = [], [], 0, []

    def rounds(self):
        """All rounds; then the broker is killed once more, and everything is read again, by another client as well."""
        self.broker.start()
        print(f"broker: {self.broker.what}", flush=True)
        try:
            self._prepare()
            for number in range(1, self.args.rounds + 1):
                self._round(number)
            self.broker.kill()
            self.broker.restart()
            for copier in self.copiers:
                self._last_look(copier)
        finally:
            for life in self.lives:
                life.kill()
            self.broker.stop()

    def _prepare(self):
        self.copiers, left_out = copiers.installed(self.args.copier, PARTITIONS, self.broker.bootstrap, self.log)
        for name, reason in left_out.items():
            print(f"left out: {name}: {reason}", flush=True)
        if not self.copiers:
            raise LeftOut("no copier could be installed")
        for copier in self.copiers:
            for topic in (copier.source, copier.target):
                self.create(self.broker.port, topic, PARTITIONS)

    def _round(self, number):
        begun = time.monotonic()
        copier = self.dice.choices(self.copiers, [WEIGHTS[each.name] for each in self.copiers])[0]
        partitions, size = copier.choose(self.dice), self.dice.choice(copiers.SIZES)
        self.lived, self.deeds = 0, []
        try:
            copier.feed(RECORDS, partitions)
            self.lives = [self._new_life(command) for command in copier.commands(size, partitions)]
            for _ in range(self.dice.choice((1, 1, 2, 3))):
                if self._aim(copier):
                    self._strike()
            self._finish()
            found = copier.check()
        except Failure as failure:
            done = ", ".join(self.deeds) or "nothing was killed"
            raise Failure(f"round {number} ({copier.name}: {done}): {failure} (logs and data: {self.work})") from failure
        print(
            f"ok {number} {copier.name}: {', '.join(self.deeds) or 'nothing was killed in time'}; {found['records']:,} records "
            f"once and in order, {found['aborts']} transactions with {found['aborted_records']:,} records aborted, "
            f"{self.lived} lives, {time.monotonic() - begun:.1f} s",
            flush=True,
        )

    def _new_life(self, command):
        self.lived += 1
        return copiers.Life(command, self.log)

    def _aim(self, copier):
        """Waits for the moment to kill: somewhere in the start of a copier, or when it ends a transaction.
        False when all is copied already."""
        self._raise_the_dead()
        living = [life for life in self.lives if life.over() is None]
        if not living:
            return False
        life, count = self.dice.choice(living), self.dice.randrange(copier.aim)
        if count == 0:
            time.sleep(self.dice.uniform(0, 0.4))
        else:
            life.wait_for(life.ends + count, limit_s=5)
            time.sleep(self.dice.uniform(0, AFTER_END_S))
        return any(life.over() is None for life in self.lives)

    def _raise_the_dead(self):
        """A copier that ended with an error is started again; one that ended well is done."""
        for place, life in enumerate(self.lives):
            if life.over():
                self.lives[place] = self._new_life(life.command)

    def _strike(self):
        deed = self.dice.choice(("server", "server", "copier", "both", "zombie"))
        if not self.broker.alive():
            raise Failure(f"{self.broker.what} ended by itself: {last_line(self.broker.log)}")
        {"server": self._kill_server, "copier": self._kill_copiers, "both": self._kill_both, "zombie": self._zombie}[deed]()

    def _kill_server(self):
        self.broker.kill()
        self._restart()
        self.deeds.append(f"server killed{self._recoveries}")

    def _restart(self):
        """Starts the broker again, in some rounds after kills in the middle of its recovery."""
        again = 0
        if self.broker.name == "ringlog":
            while self.dice.random() < 0.3:
                self.broker.launch()
                time.sleep(self.dice.uniform(0, 0.15))
                self.broker.kill()
                again += 1
        self.broker.restart()
        self._recoveries = f" and {again} times in recovery" if again else ""

    def _kill_copiers(self):
        for life in self.lives:
            if life.over() is None:
                life.kill()
        self.lives = [life if life.over() == 0 else self._new_life(life.command) for life in self.lives]
        self.deeds.append("copier killed")

    def _kill_both(self):
        """In either order, a few milliseconds apart; the copier may be there before the broker is."""
        server_first, early = self.dice.random() < 0.5, self.dice.random() < 0.5
        if server_first:
            self.broker.kill()
            time.sleep(self.dice.uniform(0, 0.005))
        living = [life for life in self.lives if life.over() is None]
        for life in living:
            life.kill()
        if not server_first:
            time.sleep(self.dice.uniform(0, 0.005))
            self.broker.kill()
        if not early:
            self._restart()
        self.lives = [self._new_life(life.command) if life in living else life for life in self.lives]
        if early:
            self._restart()
        self.deeds.append(f"both killed{self._recoveries}")

    def _zombie(self):
        """A copier stands still, another takes its place and ends transactions; then the first goes on where it was."""
        place = self.dice.choice([place for place, life in enumerate(self.lives) if life.over() is None])
        old = self.lives[place]
        old.pause()
        try:
            new = self.lives[place] = self._new_life(old.command)
            new.wait_for(self.dice.randrange(1, 4), limit_s=5)
            old.resume()
            time.sleep(self.dice.uniform(0, 0.3))
        finally:
            old.kill()
        self.deeds.append("copier paused and replaced")

    def _finish(self):
        """Waits until everything is copied."""
        deadline = time.monotonic() + ROUND_LIMIT_S
        while any(life.over() != 0 for life in self.lives):
            if not self.broker.alive():
                raise Failure(f"{self.broker.what} ended by itself: {last_line(self.broker.log)}")
            if time.monotonic() > deadline:
                raise Failure(f"not everything is copied after {ROUND_LIMIT_S} s and {self.lived} lives: {last_line(self.log)}")
            self._raise_the_dead()
            for life in self.lives:
                if life.over() is None and time.monotonic() - life.heard_at > STILL_S:
                    life.kill()
                    self.deeds.append(f"copier stood still for {STILL_S} s")
            time.sleep(0.02)

    def _last_look(self, copier):
        """Judges a target once more: a later crash must not harm what was committed. librdkafka reads it, too."""
        if not any(copier.ends):
            return
        found = copier.check()
        said = f"{copier.name}: {found['records']:,} records once and in order"
        try:
            install.python("python")
        except LeftOut as reason:
            print(f"after the last round, {said}; not read by librdkafka: {reason}", flush=True)
            return
        folder = self.work / f"read-{copier.name}"
        confluent = python_program("confluent")
        confluent.consume(self.broker.bootstrap, self.log, {copier.target: sum(copier.ends)}, folder, committed=True)
        for name, expected in copier.expected().items():
            if (folder / name).read_bytes() != expected:
                raise Failure(f"{name}: librdkafka reads something else than was written (logs and data: {self.work})")
        print(f"after the last round, {said}, read by franz-go and librdkafka", flush=True)
