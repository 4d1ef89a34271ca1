//! Folding, table and graphs on what perf recorded of a server with one shard and its load: 19 samples and 60 switches. The
//! expected figures were counted from the text by other means.

#![allow(clippy::unwrap_used)]

use std::fs;

use ringlog_benches::profile::page::{Graphs, INDEX, write};
use ringlog_benches::profile::threads::{Process, Thread, threads};
use ringlog_benches::profile::waits::waits;
use ringlog_benches::profile::{Kind, ProfileError, fold, table};

const ON_CPU: &str = include_str!("profile/on-cpu.txt");
const OFF_CPU: &str = include_str!("profile/off-cpu.txt");

fn processes() -> Vec<Process> {
    ["server=1951", "load=1970"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

fn on_cpu() -> Vec<Thread> {
    threads(&fold(ON_CPU).unwrap(), &processes()).unwrap()
}

fn off_cpu() -> Vec<Thread> {
    threads(&fold(&waits(OFF_CPU)).unwrap(), &processes()).unwrap()
}

#[test]
fn samples_are_sorted_by_process_and_thread() {
    let found: Vec<(String, String, u64)> = on_cpu()
        .iter()
        .map(|t| (t.process.clone(), t.name.clone(), t.weight()))
        .collect();
    let expected = [
        ("server", "ringlog-0", 10),
        ("server", "iou-wrk", 3),
        ("load", "produce-0", 6),
    ];
    assert_eq!(
        found,
        expected.map(|(process, name, n)| (process.to_owned(), name.to_owned(), n))
    );
}

#[test]
fn symbols_are_names_without_hashes() {
    for thread in on_cpu() {
        for frame in thread.stacks.iter().flat_map(|stack| &stack.frames) {
            let symbol = &frame.symbol;
            assert!(
                !symbol.starts_with("_ZN") && !symbol.starts_with("_R"),
                "{symbol}"
            );
            assert!(
                !symbol.contains("::h0") && !symbol.contains("_[k]"),
                "{symbol}"
            );
        }
    }
}

#[test]
fn the_table_tells_self_from_children_and_user_from_kernel() {
    // 10 samples of 1 s at 499 a second.
    let rows = table::rows(&on_cpu(), 499.0, 1.0, 100);
    let shard = &rows[0];
    assert_eq!((shard.process.as_str(), shard.samples), ("server", 10));
    assert!((shard.cpu_percent - 100.0 * 10.0 / 499.0).abs() < 1e-9);
    assert_eq!((shard.user_percent, shard.kernel_percent), (20.0, 80.0));
    let find = |rows: &[table::Row], symbol: &str| {
        let row = rows.iter().find(|row| row.symbol == symbol).cloned();
        row.map(|row| (row.self_percent, row.children_percent, row.kernel))
    };
    let run = "ringlog_engine::ring::turns::Turns<D>::run";
    assert_eq!(find(&shard.by_children, run), Some((0.0, 100.0, false)));
    assert_eq!(find(&shard.by_self, run), None);
    assert_eq!(
        find(&shard.by_children, "tcp_sendmsg_locked"),
        Some((0.0, 50.0, true))
    );
    assert_eq!(
        find(&shard.by_self, "finish_task_switch.isra.0"),
        Some((20.0, 20.0, true))
    );
    let text = table::text(&rows);
    assert!(
        text.contains(
            "server ringlog-0: 2.0 % of a core (10 samples), 20.0 % of it user, 80.0 % kernel"
        ),
        "{text}"
    );
}

#[test]
fn waits_last_from_leaving_to_coming_back_and_say_why() {
    let by_reason = |thread: &Thread, reason: &str| -> u64 {
        let stacks = thread.stacks.iter();
        stacks
            .filter(|stack| stack.frames.last().unwrap().symbol == reason)
            .map(|stack| stack.weight)
            .sum()
    };
    let found = off_cpu();
    let names: Vec<&str> = found.iter().map(|thread| thread.name.as_str()).collect();
    assert_eq!(names, ["iou-wrk", "ringlog-0", "produce-0"]);
    assert_eq!(by_reason(&found[0], "[waiting]"), 1378);
    assert_eq!(by_reason(&found[0], "[uninterruptible]"), 622);
    assert_eq!(by_reason(&found[1], "[preempted]"), 411);
    assert_eq!(by_reason(&found[1], "[waiting]"), 36);
    assert_eq!(by_reason(&found[2], "[preempted]"), 645);
    assert_eq!(by_reason(&found[2], "[waiting]"), 318);
}

#[test]
fn a_folder_has_a_graph_for_each_thread_and_a_page_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("graphs");
    let (on, off) = (on_cpu(), off_cpu());
    let graphs = [
        Graphs {
            kind: Kind::OnCpu,
            threads: &on,
        },
        Graphs {
            kind: Kind::OffCpu,
            threads: &off,
        },
    ];
    write(&out, "a < b", &["a note".into()], &graphs).unwrap();
    let page = fs::read_to_string(out.join(INDEX)).unwrap();
    assert!(page.contains("a &lt; b") && page.contains("<li>a note"));
    for name in [
        "on-cpu-server",
        "on-cpu-server-ringlog-0",
        "off-cpu-server-iou-wrk",
        "off-cpu-load",
    ] {
        let svg = fs::read_to_string(out.join(format!("{name}.svg"))).unwrap();
        assert!(svg.trim_end().ends_with("</svg>"), "{name}");
        assert!(page.contains(&format!("{name}.svg")), "{name}");
    }
    let shard = fs::read_to_string(out.join("on-cpu-server-ringlog-0.svg")).unwrap();
    assert!(
        shard.contains("ringlog_engine::ring::turns::Turns&lt;D&gt;::run (10 samples, 100.00%)")
    );
}

#[test]
fn nothing_of_the_processes_is_an_error() {
    let other = ["server=1".parse().unwrap()];
    let folded = fold(ON_CPU).unwrap();
    assert!(matches!(threads(&folded, &other), Err(ProfileError::Empty)));
    assert!(matches!(threads("x", &other), Err(ProfileError::Folded(_))));
    assert!("server".parse::<Process>().is_err());
    assert_eq!(waits("no event\n\nnor this\n"), "");
}
