"""RocketMQ from its Maven artifacts: a name server and a broker for each way of flushing, driven by its benchmark producer."""

import re
import shutil
import time

import bench_host as host
import install
from peer_systems import Case, System
from peer_tool import rate
from process import free_ports, start, stop, wait_for_port

THREADS = 64
LINE = re.compile(r"Send TPS: (\d+)")
# The tool's line is the mean of its last ten seconds.
INTERVAL_S = 10
# As its start scripts have them for Java 17.
EXPORTS = ("--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED", "--add-exports=jdk.unsupported/sun.misc=ALL-UNNAMED",
           "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
           "--add-opens=java.base/java.nio=ALL-UNNAMED")
HEAP = "1g"


class RocketMq(System):
    """Two brokers, each with a name server of its own."""

    name = "RocketMQ"
    how_to_install = "Java 17 and Maven (Debian: apt install default-jre-headless maven); RocketMQ itself comes from Maven Central"

    def install(self):
        self.java = install.java()
        self.jars = install.jars("rocketmq", "RocketMQ")
        self.version = install.pom_version("rocketmq")
        self.processes, self.names, self.topics = [], {}, 0

    def start(self):
        for durable, flush in ((True, "SYNC_FLUSH"), (False, "ASYNC_FLUSH")):
            self._broker(durable, flush)
        # The brokers tell their name servers of themselves.
        time.sleep(3)

    def _broker(self, durable, flush):
        folder = self.run.folder / f"rocketmq-{flush.lower()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        names, port = free_ports(), free_ports(4) + 2
        (folder / "names.conf").write_text(f"listenPort={names}\n")
        (folder / "broker.conf").write_text(
            f"brokerClusterName=peers\nbrokerName={flush.lower()}\nbrokerId=0\nbrokerRole=ASYNC_MASTER\nlistenPort={port}\n"
            f"brokerIP1=127.0.0.1\nnamesrvAddr=127.0.0.1:{names}\nstorePathRootDir={folder}/store\nstorePathCommitLog={folder}/store/commitlog\n"
            f"flushDiskType={flush}\n"
        )
        self._java(folder, "namesrv.NamesrvStartup", "names.conf", "256m", names)
        self._java(folder, "broker.BrokerStartup", "broker.conf", HEAP, port)
        self.names[durable] = (f"127.0.0.1:{names}", flush)

    def _java(self, folder, cls, config, heap, port):
        log = folder / f"{cls}.log"
        command = self._command(folder, heap, f"org.apache.rocketmq.{cls}", "-c", folder / config)
        with host.pinned(self.run.server_cores):
            process = start(command, log)
            self.processes.append((process, folder))
            wait_for_port(port, process, log, limit_s=60)

    def _command(self, folder, heap, cls, *words):
        """Its logs go below user.home."""
        return [self.java, f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseG1GC", *EXPORTS, f"-Duser.home={folder}", f"-Drocketmq.home.dir={folder}",
                "-cp", f"{self.jars}/*", cls, *words]

    def pids(self):
        return [process.pid for process, _ in self.processes]

    def cases(self):
        return [
            Case(f"one at a time by {THREADS} threads", durable, f"flushDiskType={flush}, heap {HEAP}, otherwise defaults",
                 f"org.apache.rocketmq.example.benchmark.Producer -w {THREADS}", self._body(names))
            for durable, (names, flush) in self.names.items()
        ]

    def _body(self, names):
        def body(size, seconds):
            self.topics += 1
            folder = self.run.folder / "rocketmq-tool"
            folder.mkdir(exist_ok=True)
            command = self._command(folder, "512m", "org.apache.rocketmq.example.benchmark.Producer", "-n", names, "-t", f"t{self.topics}",
                                    "-w", THREADS, "-s", size, "-ri", 1000)
            # Lines come each second, from the tenth on, and each tells of ten: the one that counts begins where the first ends,
            # for its JVM takes seconds to compile itself.
            return rate(command, self.run.folder / "rocketmq-tool.log", self.run.load_cores, LINE, INTERVAL_S - 1, 1, 1)

        return body

    def stop(self):
        for process, folder in reversed(getattr(self, "processes", [])):
            stop(process, grace_s=15)
            shutil.rmtree(folder, ignore_errors=True)
        self.processes = []
