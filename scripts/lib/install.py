"""Installs what a check needs, each from the registry it is published in, and nothing when it is there already.
What cannot be had raises LeftOut with the reason."""

import fcntl
import hashlib
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

from paths import CACHE, CLIENTS
from process import Failure, LeftOut, run

LOG = CACHE / "log" / "install.log"
_apt_updated = False
_lock_depth = 0


@contextmanager
def _locked():
    """One installation at a time, also across processes. An installation may need another first."""
    global _lock_depth
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".lock", "w") as lock:
        if _lock_depth == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)
        _lock_depth += 1
        try:
            yield
        finally:
            _lock_depth -= 1


def _attempt(what, command, **options):
    try:
        return run(command, LOG, **{"timeout_s": 600, **options})
    except Failure as failure:
        raise LeftOut(f"{what} could not be installed: {failure} (log: {LOG})") from failure


def _once(folder, fingerprint, build):
    """Calls `build(folder)` unless the folder was built from the same inputs before."""
    key = hashlib.sha256(fingerprint.encode()).hexdigest()
    stamp = folder / ".built-from"
    with _locked():
        if not stamp.exists() or stamp.read_text() != key:
            folder.mkdir(parents=True, exist_ok=True)
            build(folder)
            stamp.write_text(key)
    return folder


def apt(command, package):
    """Path of a command, from the distribution's package if it is not there yet."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    found = shutil.which(command, path=path)
    if found:
        return found
    apt_get(package)
    found = shutil.which(command, path=path)
    if not found:
        raise LeftOut(f"package {package} installed, but it brought no {command}")
    return found


def apt_get(*packages):
    """Installs distribution packages, as root or through sudo."""
    global _apt_updated
    if not shutil.which("apt-get"):
        raise LeftOut(f"{' '.join(packages)} not installed, and there is no apt-get to install it with")
    prefix = ["env", "DEBIAN_FRONTEND=noninteractive"]
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            raise LeftOut(f"{' '.join(packages)} not installed: needs root or sudo (apt-get install {' '.join(packages)})")
        prefix = ["sudo", "-n", *prefix]
    with _locked():
        if not _apt_updated:
            _attempt("the package lists", [*prefix, "apt-get", "update", "-qq"])
            _apt_updated = True
        _attempt(" ".join(packages), [*prefix, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])


def rsyslog():
    """Path of rsyslogd, with its Kafka module."""
    daemon = apt("rsyslogd", "rsyslog")
    if not library("rsyslog/omkafka.so"):
        apt_get("rsyslog-kafka")
    return daemon


def java():
    """Path of a Java runtime that Kafka 4.x runs on (17 or newer)."""
    path = apt("java", "default-jre-headless")
    version = _attempt("Java", [path, "--version"]).decode().split()
    major = int(version[1].split(".")[0].split("-")[0])
    if major < 17:
        raise LeftOut(f"Java 17 or newer needed, {path} is {major}")
    return path


def kafka_jars():
    """The folder with Kafka's broker and tools, and everything on their class path."""
    return jars("kafka", "Kafka")


def jars(name, what):
    """The folder with what compat.d/<name>/pom.xml asks for, and everything on its class path."""
    pom = CLIENTS / name / "pom.xml"

    def build(folder):
        target = folder / "jars"
        shutil.rmtree(target, ignore_errors=True)
        _attempt(
            what,
            [
                apt("mvn", "maven"), "-q", "-B", "-f", pom,
                "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
                f"-DoutputDirectory={target}", "-DincludeScope=runtime",
            ],
        )

    return _once(CACHE / name, pom.read_text(), build) / "jars"


def java_classes():
    """The class path of our Java programs, of Kafka Streams, Connect and MirrorMaker."""
    folder = jars("java", "Kafka Streams and Connect")
    sources = sorted((CLIENTS / "java").glob("*.java"))

    def build(target):
        compiler = apt("javac", "default-jdk-headless")
        _attempt("the Java programs", [compiler, "-cp", f"{folder}/*", "-d", target, *sources])

    inputs = "".join(path.read_text() for path in (CLIENTS / "java" / "pom.xml", *sources))
    return f"{_once(CACHE / 'java' / 'classes', inputs, build)}:{folder}/*"


def group_members():
    """The class path of the program with many consumers, and of Kafka's client."""
    folder = kafka_jars()
    source = CLIENTS / "groups" / "GroupMembers.java"

    def build(target):
        compiler = apt("javac", "default-jdk-headless")
        _attempt("the consumers' program", [compiler, "-cp", f"{folder}/*", "-d", target, source])

    return f"{_once(CACHE / 'groups', source.read_text() + pom_version('kafka'), build)}:{folder}/*"


def pom_version(name):
    """The version that compat.d/<name>/pom.xml names."""
    return re.search(r"<(?:peer|kafka).version>([^<]+)<", (CLIENTS / name / "pom.xml").read_text()).group(1)


def unpacked(name, what):
    """The folder that the archive of compat.d/<name>/pom.xml unpacks to."""
    folder = jars(name, what)
    archive = next(folder.glob("*.tar.gz"), None)
    if archive is None:
        raise LeftOut(f"{what}: {folder} holds no archive")

    def build(target):
        _attempt(what, ["tar", "-xzf", archive, "-C", target])

    target = _once(CACHE / name / "unpacked", archive.name, build)
    return next(path for path in target.iterdir() if path.is_dir())


def python(name):
    """The interpreter of a virtual environment with the packages of compat.d/<name>/requirements.txt."""
    requirements = CLIENTS / name / "requirements.txt"
    if not (CACHE / name / "bin" / "python").exists():
        try:
            run([sys.executable, "-c", "import ensurepip, venv"], LOG)
        except Failure:
            apt_get("python3-venv")

    def build(folder):
        _attempt("a virtual environment", [sys.executable, "-m", "venv", "--clear", folder])
        _attempt("the Python clients", [folder / "bin" / "pip", "install", "-q", "-r", requirements])

    return _once(CACHE / name, requirements.read_text() + sys.version, build) / "bin" / "python"


def node():
    """The folder with our kafkajs program and its modules, and the path of node."""
    binary = apt("node", "nodejs")
    npm = apt("npm", "npm")
    source = CLIENTS / "node"
    files = sorted(path for path in source.iterdir() if path.is_file())

    def build(folder):
        for path in files:
            shutil.copy(path, folder)
        _attempt("the Node clients", [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder)

    return binary, _once(CACHE / "node", "".join(path.read_text() for path in files), build)


def go():
    """The folder with our Go programs, built."""
    return _go_programs("go", "the Go clients")


def telegraf():
    """The folder with Telegraf's agent, built with a few of its plugins."""
    return _go_programs("telegraf", "Telegraf")


def _go_programs(name, what):
    source = CLIENTS / name
    files = sorted(path for path in source.rglob("*") if path.is_file())
    binary = apt("go", "golang-go")

    def build(folder):
        _attempt(what, [binary, "build", "-o", f"{folder}/", "./..."], cwd=source, timeout_s=900)

    return _once(CACHE / name, "".join(path.read_text() for path in files), build)


def kgo_suite():
    """franz-go's own tests as a program, and the folder that they must run in."""
    source = CLIENTS / "go"
    binary = apt("go", "golang-go")

    def build(folder):
        _attempt(
            "franz-go's tests", [binary, "test", "-c", "-o", folder / "kgo.test", "github.com/twmb/franz-go/pkg/kgo"],
            cwd=source,
        )

    program = _once(CACHE / "kgo", (source / "go.mod").read_text(), build) / "kgo.test"
    module = _attempt("franz-go", [binary, "list", "-m", "-f", "{{.Dir}}", "github.com/twmb/franz-go"], cwd=source)
    return program, Path(module.decode().strip()) / "pkg" / "kgo"


def kafka_python_tests():
    """The folder of kafka-python's source distribution, whose tests can be run in it."""
    requirements = (CLIENTS / "suites" / "requirements.txt").read_text()
    wanted = re.search(r"^kafka-python==\S+", requirements, re.MULTILINE).group()
    service = CLIENTS / "suites" / "service.py"
    interpreter = python("suites")

    def build(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _attempt("kafka-python's tests", [
            interpreter, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder, wanted,
        ])
        _attempt("kafka-python's tests", ["tar", "-xzf", next(folder.glob("*.tar.gz")), "-C", folder, "--strip-components=1"])
        shutil.copy(service, folder / "test" / "service.py")
        # Python has a package of that name, which would be found first.
        (folder / "test" / "__init__.py").touch()

    return _once(CACHE / "kafka-python", wanted + service.read_text(), build)


def library(name):
    """Whether a library of that path is there, in the distribution's library folders or one below."""
    folders = (Path(base) for base in ("/usr/lib", "/usr/lib64", "/usr/local/lib"))
    return any(found.exists() for folder in folders for found in (folder / name, *folder.glob(f"*/{name}")))
