"""Child processes with a time limit and a log, and free ports. Every child leads a process group of its own, so that
stopping it stops what it started."""

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path


# Of a command's standard output, so much goes to its log.
LOGGED_BYTES_MAX = 64 * 1024


class Failure(Exception):
    """A check did not hold."""


class LeftOut(Exception):
    """Something could not be had on this host; what needs it is left out, by name."""


def end_like_interrupted():
    """From here on SIGTERM and SIGHUP end the program as Ctrl-C does: what it started is stopped, what it made is removed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # nohup has SIGHUP ignored, and means it.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number, _frame):
    raise KeyboardInterrupt


def stop(process, grace_s=10):
    """Ends a child and its group: politely first, then for certain. Returns its exit code."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
    _signal(process, signal.SIGKILL)
    return process.wait()


def _signal(process, number):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def start(command, log, env=None, cwd=None, stdout=None):
    """Starts a child whose output goes to `log` (its standard output to `stdout`, if given)."""
    with open(log, "ab") as sink:
        sink.write(("$ " + " ".join(map(str, command)) + "\n").encode())
        sink.flush()
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=stdout or sink,
            stderr=sink,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )


def run(command, log, timeout_s=120, env=None, cwd=None, stdin=None, with_errors=False, any_code=False):
    """Runs a command to its end. Returns its standard output as bytes, `with_errors` what it wrote to standard error among
    it; Failure on a non-zero exit unless `any_code` is asked for, or past the limit. The command, its output and its errors are appended to `log`.
    `stdin` is a file to read from."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as sink, open(stdin or os.devnull, "rb") as source:
        sink.write(("$ " + " ".join(map(str, command)) + "\n").encode())
        sink.flush()
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if with_errors else sink,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise Failure(f"{command[0]} is not there: {error}") from error
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name_of(command)} took longer than {timeout_s} s") from None
        finally:
            stop(process, grace_s=2)
        sink.write(output[:LOGGED_BYTES_MAX])
    if process.returncode != 0 and not any_code:
        raise Failure(f"{name_of(command)} ended with {process.returncode}: {last_line(log)}")
    return output


def name_of(command):
    """A command's short name: for Java its class, for an interpreter its program."""
    words = [str(word) for word in command]
    for word in words:
        if word.startswith(("org.apache.kafka.", "kafka.")):
            return word.rsplit(".", 1)[-1]
    if "python" in words[0] or "node" in words[0]:
        return Path(words[1]).name
    return Path(words[0]).name


def last_line(log):
    """The last line of a log that says something, for one-line reasons."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - 8192))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except FileNotFoundError:
        return "no output"
    lines = [line for line in lines if line and not line.startswith("$ ")]
    return lines[-1][:300] if lines else "no output"


def free_ports(count=1):
    """The first of `count` consecutive free TCP ports on loopback, outside the range that outgoing connections use."""
    for _ in range(1000):
        base = random.randrange(20000, 32000)
        if all(_is_free(base + i) for i in range(count)):
            return base
    raise Failure("no free TCP port between 20000 and 32000")


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def wait_for_port(port, process, log, limit_s):
    """Waits until something listens on a loopback port; Failure when `process` ends first or the limit passes."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failure(f"ended with {process.returncode} before it listened: {last_line(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise Failure(f"nothing listened on port {port} within {limit_s} s: {last_line(log)}")
