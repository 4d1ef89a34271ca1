"""A large group: how soon all its members know what they own, at first, after one leaves, and after one crashes."""

import queue

import bench_host as host
import install
from group_members import Crew, Group, now_us
from process import Failure, LeftOut

# A member that is not heard of for so long is out, and how often members are to be heard: the same for both protocols and brokers.
SESSION_MS, HEARTBEAT_MS = 6000, 1000
# What brokers decide. The first has no effect on groups of the consumer protocol, the others none on classic ones.
BROKER = {
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.heartbeat.interval.ms": str(HEARTBEAT_MS),
    "group.consumer.assignment.interval.ms": "1000",
    "offsets.topic.num.partitions": "50",
}
# Kafka lets nobody go below these.
KAFKA = {
    **BROKER, "group.consumer.min.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.heartbeat.interval.ms": str(HEARTBEAT_MS),
}
CLASSIC = ("group.protocol=classic", f"session.timeout.ms={SESSION_MS}", f"heartbeat.interval.ms={HEARTBEAT_MS}")
STRATEGY = "partition.assignment.strategy=org.apache.kafka.clients.consumer."
CASES = {
    "classic protocol, range": (*CLASSIC, f"{STRATEGY}RangeAssignor"),
    "classic protocol, cooperative-sticky": (*CLASSIC, f"{STRATEGY}CooperativeStickyAssignor"),
    "consumer protocol, uniform": ("group.protocol=consumer", "group.remote.assignor=uniform"),
}
# One case of each protocol warms the brokers and the consumers' process up.
WARM_UP = ("classic protocol, range", "consumer protocol, uniform")
# A balance counts when nothing changes for so long; the longest it may take.
SETTLE_S, LIMIT_S = 3.0, 90
WARM_TOPIC, WARM_PARTITIONS = "groups-warm-up", 10


def groups(bench):
    """A group of 50 consumers over 1,000 partitions: first balance, then one leaves, then one crashes"""
    size, partitions = (8, 64) if bench.quick else (50, 1000)
    try:
        install.group_members()
    except LeftOut as reason:
        raise Failure(f"there are no consumers: {reason}") from reason
    options = [word for name, value in BROKER.items() for word in ("--set", f"{name}={value}")]
    with bench.brokers(options, ("ringlog", "kafka"), kafka_extra=KAFKA, warm_up=False) as sides:
        for side in sides:
            for topic, count in ((WARM_TOPIC, WARM_PARTITIONS), ("groups", partitions)):
                bench.load.run(side, "produce", "--topic", topic, "--partitions", count, "--rate", 100, "--warmup", 0, "--duration", 1)
        told = queue.Queue()
        crew = Crew(bench.load_cores, bench.log, told)
        try:
            for case in WARM_UP:
                for side in sides:
                    warm_up(crew, told, side, case, size, partitions)
            for case in CASES:
                for repeat in range(bench.repeat):
                    for side in bench.in_turn(sides, repeat):
                        host.settle()
                        name = f"measured-{len(bench.runs)}"
                        round_ = Round(bench, crew, told, side, CASES[case], name, size, partitions)
                        figures, note = round_.run()
                        bench.record_figures(
                            f"{size} members, {partitions:,} partitions, {case}", side, repeat, figures, note=note,
                            settings=settings(case),
                        )
        finally:
            crew.stop()


def settings(case):
    """What was set, for the reader."""
    brokers = " ".join(f"{name}={value}" for name, value in BROKER.items())
    return f"consumers of Apache Kafka's Java client: {' '.join(CASES[case])}; brokers: {brokers}"


def warm_up(crew, told, side, case, size, partitions):
    """All members join once and leave."""
    group = Group(told, partitions)
    crew.command("prepare", side.bootstrap, f"warm-{case.split()[0]}", "groups", 0, size, *CASES[case])
    group.wait_for("prepared", crew)
    group.ownership.begin(range(size), now_us())
    crew.command("go")
    group.balance(0.5, LIMIT_S)
    crew.command("end")
    group.wait_for("ended", crew)


class Round:
    """One group from its first balance to its end. Its last member lives in a process of its own, which is killed."""

    def __init__(self, bench, crew, told, side, client, name, size, partitions):
        self.bench, self.crew, self.side, self.client, self.name, self.size = bench, crew, side, client, name, size
        self.told, self.partitions = told, partitions

    def run(self):
        """The figures, and a note."""
        victim = self._victim()
        group = Group(self.told, self.partitions)
        try:
            crews = ((self.crew, 0, self.size - 1), (victim, self.size - 1, 1))
            for crew, first, count in crews:
                crew.command("prepare", self.side.bootstrap, self.name, "groups", first, count, *self.client)
                group.wait_for("prepared", crew)
            group.expected_gone.add(victim)
            cpu_s = host.cpu_seconds(self.side.pid)
            first_s, _, callbacks = self._phase(group, range(self.size), lambda: [crew.command("go") for crew, _, _ in crews])
            cpu_s = host.cpu_seconds(self.side.pid) - cpu_s
            left_s, _, _ = self._phase(group, range(1, self.size), lambda: self.crew.command("close", 0))
            crashed_s, told_s, _ = self._phase(group, range(1, self.size - 1), victim.kill)
        finally:
            victim.stop()
        self.crew.command("end")
        group.wait_for("ended", self.crew)
        figures = {
            "first_balance_s": first_s, "leave_s": left_s, "crash_s": crashed_s,
            "crash_after_session_s": crashed_s - SESSION_MS / 1000, "group_cpu_s": cpu_s,
        }
        note = f"{callbacks} callbacks until the first balance; after the crash the first member was told after {told_s:.1f} s"
        return figures, note

    def _victim(self):
        """A process with one member, which has been in a group before: its classes are loaded."""
        victim = Crew(self.bench.load_cores, self.bench.log, self.told)
        try:
            group = Group(self.told, WARM_PARTITIONS)
            victim.command("prepare", self.side.bootstrap, f"{self.name}-warm-up", WARM_TOPIC, 0, 1, *self.client)
            group.ownership.begin([0], now_us())
            victim.command("go")
            group.balance(0.1, LIMIT_S)
            victim.command("end")
            group.wait_for("ended", victim)
        except BaseException:
            victim.stop()
            raise
        return victim

    def _phase(self, group, members, cause):
        """Seconds from the cause to the balance of these members and to the first callback of one, and callbacks in all."""
        begun_us = now_us()
        group.ownership.begin(members, begun_us)
        cause()
        balanced_us = group.balance(SETTLE_S, LIMIT_S)
        told_us = group.ownership.told_us or balanced_us
        return (balanced_us - begun_us) / 1e6, (told_us - begun_us) / 1e6, group.ownership.callbacks
