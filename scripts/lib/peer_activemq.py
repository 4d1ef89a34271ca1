"""ActiveMQ Classic as it is distributed, driven by its `activemq producer`."""

import base64
import json
import shutil
import time
import urllib.error
import urllib.request

import bench_host as host
import install
from peer_rabbitmq import group
from peer_systems import Case, System
from peer_tool import STEP_S, warm
from process import Failure, free_ports, last_line, start, stop, wait_for_port

# Each producer is a process with a connection of its own: the broker serves the messages of a connection one after the other.
PRODUCERS = 4
QUEUE = "measured"
MESSAGES_MAX = 2_000_000_000
BROKER = "org.apache.activemq:type=Broker,brokerName=localhost"
HEAP = "-Xms1G -Xmx1G"
CONNECTOR = '<transportConnector name="openwire" uri="tcp://127.0.0.1:{port}?maximumConnections=1000"/>'


class ActiveMq(System):
    """One broker; whether a message is durable is the message's own affair."""

    name = "ActiveMQ Classic"
    how_to_install = "Java 17 and Maven (Debian: apt install default-jre-headless maven); ActiveMQ itself comes from Maven Central"

    def install(self):
        install.java()
        self.home = install.unpacked("activemq", "ActiveMQ Classic")
        self.version = install.pom_version("activemq")
        self.process, self.runs = None, 0

    def start(self):
        self.folder = self.run.folder / "activemq"
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.home / "conf", self.folder / "conf")
        self.port, self.web = free_ports(), free_ports()
        self._set("activemq.xml", lambda text: between(text, "<transportConnectors>", "</transportConnectors>", CONNECTOR.format(port=self.port)))
        self._set("jetty.xml", lambda text: text.replace('value="8161"', f'value="{self.web}"'))
        self.env = {
            "ACTIVEMQ_BASE": str(self.folder), "ACTIVEMQ_CONF": str(self.folder / "conf"), "ACTIVEMQ_DATA": str(self.folder / "data"),
            "ACTIVEMQ_TMP": str(self.folder / "tmp"), "ACTIVEMQ_OPTS_MEMORY": HEAP,
        }
        (self.folder / "data").mkdir()
        self.log = self.run.folder / "activemq.log"
        with host.pinned(self.run.server_cores):
            self.process = start([self.home / "bin" / "activemq", "console"], self.log, env=self.env)
            wait_for_port(self.port, self.process, self.log, limit_s=60)
            wait_for_port(self.web, self.process, self.log, limit_s=60)

    def _set(self, name, change):
        path = self.folder / "conf" / name
        path.write_text(change(path.read_text()))

    def pids(self):
        return group(self.process.pid)

    def _ask(self, path):
        """What the broker's management interface answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.web}/api/jolokia/{path}", headers={
            "Authorization": "Basic " + base64.b64encode(b"admin:admin").decode(), "Origin": "http://localhost",
        })
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found = json.loads(answer.read())
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise Failure(f"ActiveMQ's management interface does not answer: {error}") from error
        if found.get("status") != 200:
            raise Failure(f"ActiveMQ's management interface refuses {path}: {found.get('error')}")
        return found["value"]

    def _taken(self):
        """(time, messages that the broker has taken in)."""
        return time.monotonic(), self._ask(f"read/{BROKER}/TotalEnqueueCount")

    def cases(self):
        return [
            Case(f"one at a time on {PRODUCERS} connections", durable, "as distributed (KahaDB, enableJournalDiskSyncs), heap 1g, each message answered",
                 f"activemq producer --persistent {str(durable).lower()}, {PRODUCERS} processes; counted by the broker", self._body(durable))
            for durable in (True, False)
        ]

    def _body(self, durable):
        def body(size, seconds):
            self.runs += 1
            queues = [f"{QUEUE}-{self.runs}-{number}" for number in range(PRODUCERS)]
            producers = [self._producer(queue, durable, size) for queue in queues]
            try:
                self._wait_for_all(queues, producers)
                # Its producers are JVMs that begin cold each time.
                warm(lambda: self._rate(STEP_S))
                taken = self._rate(seconds)
                if any(producer.poll() is not None for producer in producers):
                    raise Failure(f"a producer ended by itself: {last_line(self.run.folder / 'activemq-tool.log')}")
            finally:
                for producer in producers:
                    stop(producer, grace_s=1)
                for queue in queues:
                    self._ask(f"exec/{BROKER}/removeQueue/{queue}")
            return taken

        return body

    def _rate(self, seconds):
        """Messages a second that the broker takes in."""
        begun, before = self._taken()
        time.sleep(seconds)
        ended, after = self._taken()
        return (after - before) / (ended - begun)

    def _producer(self, queue, durable, size):
        # Without the option a message that is not durable would be sent without an answer.
        url = f"tcp://127.0.0.1:{self.port}?jms.alwaysSyncSend=true"
        command = [self.home / "bin" / "activemq", "producer", "--brokerUrl", url, "--user", "admin", "--password", "admin", "--destination",
                   f"queue://{queue}", "--persistent", str(durable).lower(), "--messageSize", size, "--messageCount", MESSAGES_MAX]
        with host.pinned(self.run.load_cores):
            return start(command, self.run.folder / "activemq-tool.log", env={**self.env, "ACTIVEMQ_OPTS_MEMORY": "-Xms128M -Xmx256M"})

    def _wait_for_all(self, queues, producers):
        """Until every producer's queue is there: then each JVM is up."""
        deadline = time.monotonic() + 60
        while True:
            there = json.dumps(self._ask(f"read/{BROKER}/Queues"))
            if all(queue in there for queue in queues):
                return
            if time.monotonic() > deadline or any(producer.poll() is not None for producer in producers):
                raise Failure(f"the producers did not begin: {last_line(self.run.folder / 'activemq-tool.log')}")
            time.sleep(0.5)

    def stop(self):
        if getattr(self, "process", None):
            stop(self.process, grace_s=20)
            self.process = None
            shutil.rmtree(self.folder, ignore_errors=True)


def between(text, first, last, inside):
    """`text` with what is between two words replaced."""
    before, _, rest = text.partition(first)
    _, found, after = rest.partition(last)
    if not found:
        raise Failure(f"ActiveMQ's configuration has no {first}")
    return f"{before}{first}{inside}{last}{after}"
