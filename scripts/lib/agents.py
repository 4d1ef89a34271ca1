"""Agents that ship log lines: each follows a file that grows while the broker is killed and begins again."""

import re
import threading
import time
from collections import Counter

import install
import wire
from checks import eventually
from process import Failure, start, stop

LINES_PER_S = 400
# How long the broker is away.
AWAY_S = 2
LIMIT_S = 90


def agent_checks(context):
    """A file gets lines for --minutes; halfway the broker is killed. Every line must arrive."""
    for name, agent in (("rsyslog", _rsyslog), ("telegraf", _telegraf)):
        yield f"agents/{name}", _agent(context, agent)


class Feed(threading.Thread):
    """Appends real lines to a file at a steady rate, each with a number of its own."""

    def __init__(self, context, path):
        super().__init__(daemon=True)
        self.path, self.lines = path, []
        self._seconds = context.minutes * 60
        self._input = [
            line.strip() for path in context.files.plain.values() for line in path.read_bytes().splitlines() if line.strip()
        ]
        self._stopped = threading.Event()
        path.touch()

    def run(self):
        begun = time.monotonic()
        with open(self.path, "ab", buffering=0) as file:
            while not self._stopped.is_set() and (spent_s := time.monotonic() - begun) < self._seconds:
                due = range(len(self.lines), int(spent_s * LINES_PER_S))
                found = [b"%08d " % number + self._input[number % len(self._input)] for number in due]
                file.write(b"".join(line + b"\n" for line in found))
                self.lines += found
                self._stopped.wait(0.05)

    def end(self):
        """Stops before the time is over."""
        self._stopped.set()


def _agent(context, agent):
    def check(log):
        folder, topic = context.folder(), context.topic("agent")
        feed = Feed(context, folder / "lines.log")
        command = agent(context, folder, feed.path, topic)
        context.client("confluent").create_topic(context.at, log, topic, 1, {})
        process = start(command, log)
        try:
            feed.start()
            feed.join(context.minutes * 30)
            context.broker.kill()
            time.sleep(AWAY_S)
            context.broker.restart()
            feed.join()
            if process.poll() is not None:
                raise Failure(f"the agent ended with {process.returncode} (log: {log})")
            _arrived(context, log, feed.lines, topic)
        finally:
            feed.end()
            stop(process)

    return check


def _arrived(context, log, lines, topic):
    """Every line is in the topic. An agent that heard no answer may send a line twice, and its order is its own."""

    def ends():
        return sum(wire.Cluster(context.broker.port).ends(topic).values())

    wanted = Counter(lines)
    deadline = time.monotonic() + LIMIT_S
    while True:
        eventually(lambda: ends() >= len(lines), max(0, deadline - time.monotonic()))
        count, out = ends(), context.folder()
        if count:
            context.client("franz-go").consume(context.at, log, {topic: count}, out)
        arrived = (out / f"{topic}-0").read_bytes().split(b"\n")[:-1] if count else []
        missing = wanted - Counter(arrived)
        if not missing:
            break
        if time.monotonic() > deadline:
            raise Failure(f"{len(missing)} lines of {len(lines)} did not arrive, the first {min(missing)[:80]!r}")
        time.sleep(1)
    numbers = [int(re.match(rb"\d{8}", line).group()) for line in arrived]
    back = sum(after < before for before, after in zip(numbers, numbers[1:]))
    print(f"   {len(lines)} lines arrived, {len(arrived) - len(lines)} of them again, {back} steps back", flush=True)


def _rsyslog(context, folder, path, topic):
    """imfile and omkafka."""
    daemon = install.rsyslog()
    config = folder / "rsyslog.conf"
    config.write_text(
        f'global(workDirectory="{folder}" maxMessageSize="256k")\n'
        'module(load="imfile")\n'
        'module(load="omkafka")\n'
        'template(name="line" type="string" string="%msg%")\n'
        'ruleset(name="lines") {\n'
        f'  action(type="omkafka" broker=["127.0.0.1:{context.broker.port}"] topic="{topic}" template="line"\n'
        '         resubmitOnFailure="on" keepFailedMessages="on" failedMsgFile="failed"\n'
        '         action.resumeRetryCount="-1" action.resumeInterval="1"\n'
        '         confParam=["acks=all", "linger.ms=20", "compression.codec=lz4"])\n'
        "}\n"
        f'input(type="imfile" file="{path}" tag="lines" ruleset="lines" reopenOnTruncate="on")\n'
    )
    return [daemon, "-n", "-f", config, "-i", folder / "pid"]


def _telegraf(context, folder, path, topic):
    """The tail input and the kafka output."""
    program = install.telegraf() / "telegraf"
    config = folder / "telegraf.conf"
    config.write_text(
        '[agent]\n  interval = "1s"\n  flush_interval = "200ms"\n  omit_hostname = true\n'
        "  metric_batch_size = 500\n  metric_buffer_limit = 100000\n"
        f'[[inputs.tail]]\n  files = ["{path}"]\n  initial_read_offset = "beginning"\n'
        '  data_format = "value"\n  data_type = "string"\n'
        f'[[outputs.kafka]]\n  brokers = ["{context.at}"]\n  topic = "{topic}"\n'
        "  required_acks = -1\n  compression_codec = 3\n"
        '  data_format = "template"\n  template = \'{{ .Field "value" }}\'\n'
    )
    return [program, config]
