"""The log lines that the clients write, and the comparison of what came back."""

import random
import re
from pathlib import Path

from process import Failure

COMPONENTS = ("sshd", "kernel", "nginx", "dfs.DataNode", "yarn.ResourceManager", "cron", "systemd")
EVENTS = (
    "Accepted publickey for user{0} from 10.{1}.{2}.7 port {3} ssh2",
    "Received block blk_{0}{3} of size {1}{2} from /10.{1}.{2}.4",
    'GET /api/v1/items/{0}?page={1} HTTP/1.1" 200 {3} "-" "curl/8.{2}"',
    "Out of memory: killed process {3} (java) total-vm:{0}{1}kB, anon-rss:{2}{3}kB",
    "Timeout after {3} ms waiting for reply {0} from peer {1}, retry {2}",
    "größe={0} naïve=\u2713 path=/var/lib/{1}/{2} took {3} µs",
)


def generate(folder, files=4, lines_per_file=2000):
    """Writes log files of made-up but realistic lines, the same on every call. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(1)
    for number in range(files):
        ending = "\r\n" if number % 2 else "\n"
        lines = []
        for line in range(lines_per_file):
            event = dice.choice(EVENTS).format(*(dice.randrange(10000) for _ in range(4)))
            day, hour, minute, second = 1 + line // 1000, line // 100 % 24, line // 60 % 60, line % 60
            clock = f"2026-01-{day:02} {hour:02}:{minute:02}:{second:02}.{line % 1000:03}"
            lines.append(f"{clock} {dice.choice(COMPONENTS)}[{dice.randrange(60000)}]: {event}")
        (folder / f"generated-{number}.log").write_bytes(ending.join(lines).encode() + ending.encode())
    return folder


class Lines:
    """The files to write: a topic name each, one record a line, every line ended by a line feed."""

    def __init__(self):
        self.exact, self.plain, self.count = {}, {}, {}

    def compare(self, files, folder, log):
        """Each topic's partition 0 in `folder` must hold its file byte for byte. `files` maps topic to the file that was
        written. Failure names the first difference."""
        for topic, path in files.items():
            read = folder / f"{topic}-0"
            if not read.exists():
                raise Failure(f"{topic}: nothing read back")
            want, got = Path(path).read_bytes(), read.read_bytes()
            if want != got:
                raise Failure(f"{topic}: {first_difference(want, got)}")
            with open(log, "a") as file:
                file.write(f"{topic}: {len(got)} bytes identical\n")


def first_difference(want, got):
    """Where two files of lines part."""
    wanted, gotten = want.split(b"\n"), got.split(b"\n")
    for number, (one, other) in enumerate(zip(wanted, gotten)):
        if one != other:
            return f"record {number} differs: wrote {one[:80]!r}, read {other[:80]!r}"
    return f"wrote {len(wanted) - 1} records, read {len(gotten) - 1}"


def prepare(source, folder):
    """Copies a folder's *.log files into `folder`, each line ended by a line feed: as they are, and without the carriage
    returns for writers that drop them. Empty files are no input."""
    lines = Lines()
    for kind in ("exact", "plain"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(source).glob("*.log")):
        data = path.read_bytes()
        if not data:
            continue
        if not data.endswith(b"\n"):
            data += b"\n"
        topic = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)
        for kind, content in (("exact", data), ("plain", data.replace(b"\r\n", b"\n"))):
            target = folder / kind / topic
            target.write_bytes(content)
            getattr(lines, kind)[topic] = target
        lines.count[topic] = data.count(b"\n")
    if not lines.count:
        raise Failure(f"no *.log file with a line in {source}")
    return lines
