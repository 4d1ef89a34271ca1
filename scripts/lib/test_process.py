"""What a script started ends with it."""

import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

SCRIPT = """
import sys
from process import end_like_interrupted, start, stop
end_like_interrupted()
child = start(["sleep", "600"], "/dev/null")
try:
    print(child.pid, flush=True)
    child.wait()
except KeyboardInterrupt:
    sys.exit(7)
finally:
    stop(child)
"""


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class EndLikeInterrupted(unittest.TestCase):
    def test_a_termination_stops_what_was_started(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number.name):
                folder = Path(__file__).parent
                script = subprocess.Popen([sys.executable, "-B", "-c", SCRIPT], cwd=folder, stdout=subprocess.PIPE)
                child = int(script.stdout.readline())
                self.assertTrue(is_there(child))
                script.send_signal(number)
                self.assertEqual(script.wait(30), 7)
                script.stdout.close()
                limit = time.monotonic() + 10
                while is_there(child) and time.monotonic() < limit:
                    time.sleep(0.05)
                self.assertFalse(is_there(child))


if __name__ == "__main__":
    unittest.main()
