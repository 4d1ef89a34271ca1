"""The module of kafka-python's tests that starts processes, which its source distribution leaves out. The broker is not theirs
to start here."""


class ExternalService:
    """A broker that runs already."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        """Nothing to start."""

    def close(self):
        """Nothing to stop."""


class SpawnedService:
    """A process that the tests would start: they must not."""

    def __init__(self, *_):
        raise RuntimeError("the tests should use the broker that runs")
