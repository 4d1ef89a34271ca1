"""What ran, what failed, what was left out and why."""

import time
import traceback

from process import Failure, LeftOut


class Report:
    """Runs checks one by one and keeps their outcomes."""

    def __init__(self, logs):
        self.logs = logs
        self.passed, self.failed, self.left_out = [], [], []
        # Checks that passed at the second try only, with the first try's reason.
        self.repeated = []

    def check(self, name, body):
        """Runs `body(log)`: a check passes unless it raises. `log` is the check's own file. One that fails is tried once
        more, and its name is printed with the reason: time-outs of slow clients on a busy host are not the broker's."""
        before = len(self.failed)
        self._once(name, body)
        if len(self.failed) > before:
            print(f"again {name}", flush=True)
            first = self.failed.pop()
            self._once(name, body)
            if len(self.failed) == before:
                self.repeated.append((name, first[1]))

    def _once(self, name, body):
        log = self.logs / (name.replace("/", ".") + ".log")
        begun = time.monotonic()
        try:
            body(log)
        except LeftOut as reason:
            self.leave_out(name, str(reason))
        except Failure as reason:
            self._fail(name, str(reason), log)
        except Exception as error:  # a fault of a check is a failed check, and the others still run
            with open(log, "a") as file:
                traceback.print_exc(file=file)
            self._fail(name, f"{type(error).__name__}: {error}", log)
        else:
            seconds = time.monotonic() - begun
            self.passed.append((name, seconds))
            print(f"ok {name} ({seconds:.1f})", flush=True)

    def _fail(self, name, reason, log):
        self.failed.append((name, reason))
        print(f"FAIL {name}: {reason} (log: {log})", flush=True)

    def leave_out(self, name, reason):
        """Something that was not run, and why."""
        self.left_out.append((name, reason))
        print(f"left out {name}: {reason}", flush=True)

    def finish(self):
        """Prints the table and the closing line. Returns the exit code."""
        families = {}
        for index, outcomes in enumerate((self.passed, self.failed, self.left_out)):
            for name, _ in outcomes:
                families.setdefault(name.split("/")[0], [0, 0, 0])[index] += 1
        print(f"\n{'checks':<24}{'passed':>8}{'failed':>8}{'left out':>10}")
        for family, counts in families.items():
            print(f"{family:<24}{counts[0]:>8}{counts[1]:>8}{counts[2]:>10}")
        for title, outcomes in (("failed", self.failed), ("passed at the second try", self.repeated), ("left out", self.left_out)):
            for name, reason in outcomes:
                print(f"{title}: {name}: {reason}")
        print(f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.left_out)} skipped", flush=True)
        return 1 if self.failed else 0
