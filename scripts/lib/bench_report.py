"""The results of a benchmark: JSON for programs, a markdown table for people."""

import json
import statistics

import bench_host as host

# Figures in the order of the table: (name, title, format).
FIGURES = (
    ("first_balance_s", "first balance s", "{:.2f}"),
    ("leave_s", "balance after one left s", "{:.2f}"),
    ("crash_s", "balance after a crash s", "{:.2f}"),
    ("crash_after_session_s", "the same less the session timeout s", "{:.2f}"),
    ("group_cpu_s", "server CPU s until the first balance", "{:.2f}"),
    ("acks_per_s", "acks/s", "{:,.0f}"),
    ("commits_per_s", "commits/s", "{:,.0f}"),
    ("records_per_s", "records/s", "{:,.0f}"),
    ("mb_per_s", "MB/s", "{:,.1f}"),
    ("p50_us", "p50 µs", "{:,.0f}"),
    ("p99_us", "p99 µs", "{:,.0f}"),
    ("transactions_per_s", "transactions/s", "{:,.0f}"),
    ("of_plain", "records/s, times plain", "{:.2f}"),
    ("commit_p50_us", "commit (EndTxn) p50 µs", "{:,.0f}"),
    ("commit_p99_us", "commit p99 µs", "{:,.0f}"),
    ("transaction_p50_us", "whole transaction p50 µs", "{:,.0f}"),
    ("transaction_p99_us", "whole transaction p99 µs", "{:,.0f}"),
    ("cpu_s_per_gb", "server CPU s/GB", "{:.2f}"),
    ("cpu_s_per_million", "server CPU s per million acks", "{:.2f}"),
    ("cores", "server cores", "{:.3f}"),
    ("cpu_us_per_commit", "server CPU µs per commit", "{:.1f}"),
    ("written_per_commit", "bytes written per commit", "{:,.0f}"),
    ("written_per_byte", "bytes written per byte", "{:.2f}"),
    ("syscalls_per_ack", "system calls per ack", "{:.2f}"),
    ("journals_ingested", "window / (journal + tail memory)", "{:.1f}"),
    ("backlog_growth_mb", "backlog growth MB", "{:.1f}"),
    ("ready_s", "start to ready s", "{:.3f}"),
    ("served_s", "ready to all groups served s", "{:.3f}"),
    ("bytes_per_connection", "server bytes per silent connection", "{:,.0f}"),
    ("descriptors", "server's open files", "{:,.0f}"),
    ("idle_cpu_percent", "idle CPU %", "{:.2f}"),
    ("resident_mib", "resident MiB", "{:,.0f}"),
    ("stored_gb", "stored GB", "{:.2f}"),
    ("compaction_mb_per_s", "compacted MB/s", "{:,.0f}"),
    ("kept_percent", "kept %", "{:.0f}"),
    ("resident_growth_mib", "more than before MiB", "{:,.0f}"),
)
# In these, less is better: their ratio is the other side's over ringlog's.
LESS_IS_BETTER = {
    "p50_us", "p99_us", "commit_p50_us", "commit_p99_us", "cpu_s_per_gb", "first_balance_s", "leave_s", "crash_s", "cores",
    "served_s", "bytes_per_connection",
}
RATIOS = (
    "acks_per_s", "mb_per_s", "p50_us", "p99_us", "first_balance_s", "leave_s", "crash_s", "cores", "served_s",
    "bytes_per_connection", "transactions_per_s", "commit_p50_us", "commit_p99_us",
)


def spread(values):
    """Median with the smallest and the largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(form, value):
    """Median [smallest–largest]; the median alone when there is but one."""
    text = form.format(value["median"])
    if value["min"] == value["max"]:
        return text
    return f"{text} [{form.format(value['min'])}–{form.format(value['max'])}]"


def group(runs):
    """Runs by item, case and side, in the order they came."""
    cases = {}
    for run in runs:
        cases.setdefault((run["item"], run["case"]), {}).setdefault(run["side"], []).append(run)
    return cases


def ratios(sides):
    """ringlog against each other side of a case, pair by pair: the runs of one repetition."""
    found = {}
    first = next((name for name in sides if name.startswith("ringlog")), None)
    if first is None:
        return found
    ours = {run["repeat"]: run["figures"] for run in sides[first]}
    for name, runs in sides.items():
        if name == first:
            continue
        for figure in RATIOS:
            pairs = []
            for run in runs:
                mine, other = ours.get(run["repeat"], {}).get(figure), run["figures"].get(figure)
                if mine and other:
                    pairs.append(other / mine if figure in LESS_IS_BETTER else mine / other)
            # The disk's operations are commits of many records: only its bytes compare with a server's.
            if pairs and not (name == "disk" and figure != "mb_per_s"):
                found.setdefault(name, {})[figure] = spread(pairs)
    return found


def table(sides):
    """One case as a markdown table: a row for each side."""
    present = [
        (name, title, form)
        for name, title, form in FIGURES
        if any(run["figures"].get(name) is not None for runs in sides.values() for run in runs)
    ]
    lines = ["| side | " + " | ".join(title for _, title, _ in present) + " | notes |", "|---" * (len(present) + 2) + "|"]
    for side, runs in sides.items():
        cells = []
        for name, _, form in present:
            values = [run["figures"][name] for run in runs if run["figures"].get(name) is not None]
            cells.append(show(form, spread(values)) if values else "")
        notes = "; ".join(dict.fromkeys(run["note"] for run in runs if run["note"]))
        lines.append(f"| {side} | " + " | ".join(cells) + f" | {notes} |")
    return lines


def markdown(document):
    """The whole document."""
    what = document["settings"]
    lines = [
        "# ringlog beside Apache Kafka and the raw disk",
        "",
        f"{document['date']}, commit {document['commit']}. Host: {host.describe(document['host'])}.",
        f"Server on cores {what['server_cores']}, load on cores {what['load_cores']}; {what['repeat']} repetitions in turns; "
        f"windows of {what['seconds']} s after {what['warmup']} s. Figures are medians [smallest–largest]; ratios are taken "
        "pair by pair. Acks are `acks=all`.",
        "",
    ]
    if any(name.startswith("kafka") for name in document["sides"]):
        lines += [
            f"Kafka's load before its first window: {what['jvm_warmup']:g} s, large batches and then single records; `transactions` adds half "
            "as long of its own, `commits` has only that, `groups` none.",
            "",
        ]
    if what["quick"]:
        lines += ["**A smoke test: the windows are too short for the figures to mean anything.**", ""]
    lines += [f"- {name}: {text}" for name, text in document["sides"].items()]
    lines += [f"- left out: {reason}" for reason in document["left_out"]]
    item = None
    for (name, case), sides in group(document["runs"]).items():
        if name != item:
            item = name
            lines += ["", f"## {name}: {document['items'][name]}"]
        settings = next(iter(sides.values()))[0]["settings"]
        lines += ["", f"### {case}", "", *([f"`{settings}`", ""] if settings else []), *table(sides)]
        against = ratios(sides)
        if against:
            titles = {key: title for key, title, _ in FIGURES}
            lines.append("")
            for other, figures in against.items():
                text = ", ".join(
                    f"{titles[figure]} {show('{:.2f}', value)}" + (" better" if figure in LESS_IS_BETTER else "")
                    for figure, value in figures.items()
                )
                lines.append(f"- times {other}: {text}")
    return "\n".join(lines) + "\n"


def write(document, folder, name):
    """Writes both files. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}.json", folder / f"{name}.md"
    paths[0].write_text(json.dumps(document, indent=1) + "\n")
    paths[1].write_text(markdown(document))
    return paths
