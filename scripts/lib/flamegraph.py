"""scripts/flamegraph: where server and load spend their time, and what they wait for, as pictures."""

import sys
from pathlib import Path

import profile_run
from process import Failure, LeftOut, end_like_interrupted


def parser():
    """The command line."""
    top = profile_run.arguments("flamegraph", "Flame graphs of ringlog-server and its load under a workload, one for each process and thread: "
                                              "on the processor, and, where the kernel allows it, off the processor.")
    top.add_argument("--out", type=Path, default=Path("flamegraphs"), help="folder of index.html and the SVG files (default: flamegraphs)")
    top.add_argument("--no-off-cpu", action="store_true", help="on the processor alone")
    return top


def main():
    """Records and draws; exit code 0 when there are graphs."""
    args = parser().parse_args()
    with profile_run.session(args, waits=not args.no_off_cpu, counts=False) as session:
        done = session.run()
        notes = [word for note in done.notes for word in ("--note", note)]
        off = ["--off-cpu", done.off_cpu] if done.off_cpu else []
        page = session.flame("draw", "--on-cpu", done.on_cpu, *off, *done.process_options(), "--out", args.out, "--title",
                             done.title, *notes).strip()
    for note in done.notes:
        print(note)
    print(f"graphs: {page}")
    return 0


if __name__ == "__main__":
    end_like_interrupted()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("flamegraph: interrupted")
    except (Failure, LeftOut) as reason:
        print(f"flamegraph: {reason}", file=sys.stderr)
        sys.exit(2)
