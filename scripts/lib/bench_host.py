"""The host of a benchmark: its facts, its cores, its page cache."""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from process import Failure, LeftOut

MIB = 1 << 20


def facts(folder):
    """What a reader must know of the host to judge a number; nothing that names it."""
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total_kib = int(memory["MemTotal"].split()[0])
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "cpu": model[0].split(":", 1)[1].strip() if model else platform.machine(),
        "memory_gib": round(total_kib / (1 << 20), 1),
        "kernel": platform.release().split("-")[0],
        "file_system": file_system(folder),
    }


def describe(host):
    """The facts in one line."""
    return (
        f"{host['cores']} cores ({host['cpu']}), {host['memory_gib']} GiB memory, Linux {host['kernel']}, "
        f"{host['file_system']}"
    )


def file_system(folder):
    """The type of the file system that holds `folder`."""
    output = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    return output.stdout.strip().replace("ext2/ext3", "ext4") or "unknown"


def split_cores():
    """Half of the cores for the server, the others for the load; all for both where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    return (cores[:half], cores[half:]) if half else (cores, cores)


def core_list(text):
    """[0, 2, 3] of "0,2-3"."""
    cores = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores.extend(range(int(first), int(last or first) + 1))
    return cores


class pinned:
    """Children started inside run on `cores`; this process itself goes back afterwards."""

    def __init__(self, cores):
        self.cores = cores

    def __enter__(self):
        self.before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)

    def __exit__(self, *_):
        os.sched_setaffinity(0, self.before)


def free_bytes(folder):
    """Space that is left on the file system of `folder`."""
    return shutil.disk_usage(folder).free


def wait_for_space(folder, needed, limit_s=90):
    """Waits until `needed` bytes are free: brokers remove deleted topics in their own time."""
    deadline = time.monotonic() + limit_s
    while free_bytes(folder) < needed:
        if time.monotonic() > deadline:
            raise Failure(f"{folder}: {free_bytes(folder) / 1e9:.0f} GB are free, a run may need {needed / 1e9:.0f} GB (--dir)")
        time.sleep(1)


def touch_memory(folder, size):
    """Writes and deletes `size` bytes through the page cache: a virtual host may have to get its memory back first, and
    a buffered run into memory touched for the first time measures that instead."""
    path = Path(folder) / "touch-memory"
    piece = os.urandom(MIB)
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(size // MIB):
                file.write(piece)
    finally:
        path.unlink(missing_ok=True)
    settle()


def settle(seconds=1.0):
    """Writes back what is dirty, and lets the device come to rest: nobody pays for the run before."""
    os.sync()
    time.sleep(seconds)


def drop_caches(folder, write_back=True):
    """Empties the page cache of what is stored in `folder`, what is dirty excepted unless it is written back first.
    Returns how: all of the host's, if we may, else by file."""
    if write_back:
        os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1\n")
        return "drop_caches"
    except OSError:
        pass
    for path in Path(folder).rglob("*"):
        try:
            if path.is_file():
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            continue  # Removed meanwhile.
    return "fadvise of every file"


def cpu_seconds(pid):
    """CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def system_calls_per_s(pid, seconds):
    """System calls a second of all threads of a process; LeftOut where the kernel or perf does not count them."""
    perf = shutil.which("perf")
    if perf is None:
        raise LeftOut("perf is not there (Debian: apt install linux-perf)")
    command = [perf, "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", str(pid), "--", "sleep", f"{seconds:.2f}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stderr.splitlines():
        fields = line.split(",")
        if "raw_syscalls:sys_enter" in fields and fields[0].isdigit():
            return int(fields[0]) / seconds
    raise LeftOut("perf counted no system calls here (raw_syscalls:sys_enter needs tracefs and the right to use it)")
