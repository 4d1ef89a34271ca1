"""RabbitMQ as the distribution packages it, driven by PerfTest."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import bench_host as host
import install
from paths import CLIENTS
from peer_systems import Case, System
from peer_tool import rate
from process import LeftOut, free_ports, run, start, stop, wait_for_port

# Messages that a publisher may have unconfirmed, and messages of a batch or a transaction where there are several.
WINDOW, BATCH = 1000, 100
PUBLISHERS = 4
QUEUES = 4
QUEUE = "measured"
# One call of the command for all queues: each call starts a virtual machine.
DELETE_ALL = ("[begin {ok, Q} = rabbit_amqqueue:lookup(N), rabbit_amqqueue:delete(Q, false, false, <<\"peers\">>) end "
              "|| N <- rabbit_amqqueue:list_names()], ok.")
CONFIRMED = re.compile(r"confirmed: ([\d.]+) msg/s")
SENT = re.compile(r"sent: ([\d.]+) msg/s")
# The five ways of knowing that a message is there: mode of Confirms.java, PerfTest's options or None.
WAYS = {
    "confirms, one at a time": ("single", ("-c", 1)),
    "confirms, by batches": ("batch", None),
    "confirms, asynchronous": ("async", ("-c", BATCH)),
    "transaction per message": ("tx-message", ("-m", 1)),
    "transaction per batch": ("tx-batch", ("-m", BATCH)),
}


class RabbitMq(System):
    """One node without plugins."""

    name = "RabbitMQ"
    how_to_install = "Debian: apt install rabbitmq-server default-jdk-headless maven; PerfTest comes from Maven Central"

    def install(self):
        install.java()
        self.jars = install.jars("rabbitmq", "RabbitMQ PerfTest")
        self.home = self._home() or self._from_distribution()
        self.version = self.home.name.partition("-")[2]
        self.process = None

    @staticmethod
    def _home():
        """The newest installed server."""
        found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
        return found[-1] if found else None

    def _from_distribution(self):
        install.apt_get("rabbitmq-server")
        home = self._home()
        if home is None:
            raise LeftOut("package rabbitmq-server brought no server to /usr/lib/rabbitmq/lib")
        return home

    def start(self):
        self.folder = self.run.folder / "rabbitmq"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.log = self.run.folder / "rabbitmq.log"
        port = free_ports(3)
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text("log.file.level = warning\nlog.console = false\n")
        self.env = {
            "HOME": str(self.folder), "RABBITMQ_NODENAME": "ringlog-peer@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_DIST_PORT": str(port + 1), "ERL_EPMD_PORT": str(port + 2),
            "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_MNESIA_BASE": str(self.folder / "data"), "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"), "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"), "RABBITMQ_PID_FILE": str(self.folder / "pid"),
        }
        self.uri = f"amqp://guest:guest@127.0.0.1:{port}"
        with host.pinned(self.run.server_cores):
            self.process = start([self.home / "sbin" / "rabbitmq-server"], self.log, env=self.env)
            wait_for_port(port, self.process, self.log, limit_s=90)

    def _control(self, *words):
        with host.pinned(self.run.server_cores):
            run([self.home / "sbin" / "rabbitmqctl", "-q", *words], self.log, timeout_s=60, env=self.env)

    def pids(self):
        return group(self.process.pid)

    def cases(self):
        kinds = (
            ("classic queues, persistent", True, ("--queue-args", "x-queue-type=classic", "-f", "persistent")),
            ("quorum queues", True, ("--quorum-queue",)),
            ("classic queues, transient", False, ("--queue-args", "x-queue-type=classic")),
        )
        return [
            Case(f"{QUEUES} {shape}, confirms with a window of {WINDOW}", durable, "defaults of the package, no plugins", self._tool(options),
                 self._body(options))
            for shape, durable, options in kinds
        ]

    @staticmethod
    def _tool(options):
        return f"PerfTest -x {PUBLISHERS} -y 0 -c {WINDOW} {' '.join(map(str, options))}"

    def _body(self, options):
        queues = ("--queue-pattern", f"{QUEUE}-%d", "--queue-pattern-from", 1, "--queue-pattern-to", QUEUES, "-ad", "false")

        def body(size, seconds):
            options_of = (*queues, "-x", PUBLISHERS, "-y", 0, "-c", WINDOW, *options)
            try:
                return self._perf_test(size, seconds, options_of, CONFIRMED)
            finally:
                self._control("eval", DELETE_ALL)

        return body

    def warm_up(self, cases):
        return cases[:1]

    def _perf_test(self, size, seconds, options, pattern):
        command = [install.java(), "-Xmx512m", "-cp", f"{self.jars}/*", "com.rabbitmq.perf.PerfTest", "-h", self.uri, "-s", size, *options]
        return rate(command, self.run.folder / "perf-test.log", self.run.load_cores, pattern, self.run.warmup, seconds, 1)

    def ways(self):
        """C11: one publisher, one durable queue, persistent messages; each way by a client of ours and, where it has it, by PerfTest."""
        cases = []
        for shape, (mode, options) in WAYS.items():
            cases.append(Case(shape, True, f"one publisher, {BATCH} a batch or window", f"Confirms.java {mode}", self._client(mode)))
            if options:
                words = ("-f", "persistent", "-u", QUEUE, "-ad", "false", "-x", 1, "-y", 0, *options)
                tool = "PerfTest " + " ".join(map(str, words))
                pattern = CONFIRMED if "-c" in options else SENT
                cases.append(Case(shape, True, f"one publisher, {BATCH} a batch or window", tool, self._way(words, pattern)))
        return cases

    def _way(self, words, pattern):
        def body(size, seconds):
            try:
                return self._perf_test(size, seconds, words, pattern)
            finally:
                self._control("eval", DELETE_ALL)

        return body

    def _client(self, mode):
        def body(size, seconds):
            command = [install.java(), "-Xmx256m", "-cp", f"{self.jars}/*", CLIENTS / "rabbitmq" / "Confirms.java", self.uri, QUEUE, size, mode, BATCH]
            try:
                return rate(command, self.run.folder / "confirms.log", self.run.load_cores, CONFIRMED, self.run.warmup, seconds, 1)
            finally:
                self._control("eval", DELETE_ALL)

        return body

    def stop(self):
        if getattr(self, "process", None):
            stop(self.process, grace_s=30)
            # The port mapper outlives the node that started it.
            epmd = shutil.which("epmd")
            if epmd:
                subprocess.run([epmd, "-kill"], env={**os.environ, **self.env}, capture_output=True, check=False)
            self.process = None
            shutil.rmtree(self.folder, ignore_errors=True)


def group(leader):
    """The processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == leader:
                found.append(int(entry.name))
    return found
