"""The command line that all client programs share; README.md beside this folder describes it."""

import argparse
import json

TRANSACTION_RECORDS = 200


def parse():
    """Reads the command line."""
    top = argparse.ArgumentParser()
    top.add_argument("--bootstrap", required=True)
    commands = top.add_subparsers(dest="command", required=True)
    produce = commands.add_parser("produce")
    produce.add_argument("--codec", required=True)
    produce.add_argument("--idempotent", action="store_true")
    produce.add_argument("files", nargs="+")
    consume = commands.add_parser("consume")
    consume.add_argument("--group")
    consume.add_argument("--committed", action="store_true")
    consume.add_argument("--count", type=int, required=True)
    consume.add_argument("folder")
    consume.add_argument("topics", nargs="+")
    transact = commands.add_parser("transact")
    transact.add_argument("--id", required=True)
    transact.add_argument("files", nargs="+")
    offsets = commands.add_parser("offsets")
    offsets.add_argument("--time", type=int, required=True)
    offsets.add_argument("topic")
    create = commands.add_parser("create")
    create.add_argument("--partitions", type=int, required=True)
    create.add_argument("--config", action="append", default=[])
    create.add_argument("topic")
    for name in ("describe", "delete"):
        commands.add_parser(name).add_argument("topic")
    args = top.parse_args()
    if args.command == "create":
        args.config = dict(pair.split("=", 1) for pair in args.config)
    if args.command in ("produce", "transact"):
        args.files = [pair.split("=", 1) for pair in args.files]
    return args


def lines(path):
    """The lines of a file as bytes, without their line feeds."""
    with open(path, "rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def transactions(files):
    """What `transact` writes: topic, values, and whether they are committed. Each piece of a file is aborted first."""
    for topic, path in files:
        values = list(lines(path))
        for start in range(0, len(values), TRANSACTION_RECORDS):
            piece = values[start : start + TRANSACTION_RECORDS]
            yield topic, [b"aborted " + value for value in piece], False
            yield topic, piece, True


class Output:
    """What was read, a file per partition, and the position after it."""

    def __init__(self, folder):
        self.folder, self.files, self.count, self.positions = folder, {}, 0, {}

    def add(self, topic, partition, offset, value):
        """Appends one record."""
        key = (topic, partition)
        if key not in self.files:
            self.files[key] = open(f"{self.folder}/{topic}-{partition}", "ab")
        self.files[key].write(value + b"\n")
        self.positions[key] = offset + 1
        self.count += 1

    def close(self):
        """Writes everything out."""
        for file in self.files.values():
            file.close()


def answer(value):
    """Prints a result for the caller."""
    print(json.dumps(value))
