//! `ringlog-load claims` as a person runs it, made short: the figures mean nothing, everything else does.

#![allow(clippy::unwrap_used)]

mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn claims(arguments: &[&str], dir: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-load"));
    command.arg("claims").args(arguments);
    command.arg("--dir").arg(dir).arg("--out").arg(out);
    command
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Not the system's folder for temporary files: that may lie in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

fn lines(out: &Path) -> usize {
    let text = fs::read_to_string(out.join("measurements.jsonl")).unwrap();
    text.lines().count()
}

#[test]
fn a_run_leaves_a_report_and_nothing_else() {
    let (disk, out) = (folder(), folder());
    let run = |arguments: &[&str]| claims(arguments, disk.path(), out.path()).output().unwrap();
    let output = run(&["--tiny", "--only", "c1"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(entries(disk.path()), 0, "something was left on the disk");

    let json = fs::read_to_string(out.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let claims = results["claims"].as_array().unwrap();
    assert_eq!(
        claims.len(),
        21,
        "every claim has its entry, and the drivers"
    );
    assert_eq!(claims[1]["conclusion"]["verdict"], "not_yet_measured");
    let measured = &claims[0]["measurements"];
    let first = &measured[0];
    assert!(first["params"]["block"].is_u64() && first["figures"]["mb_per_s"]["median"].is_f64());
    assert_eq!(first["repetitions"].as_array().unwrap().len(), 2);
    // Both sides take turns: the first two points differ in nothing but the pattern.
    assert_ne!(
        measured[0]["params"]["pattern"],
        measured[1]["params"]["pattern"]
    );
    assert_eq!(
        measured[0]["params"]["block"],
        measured[1]["params"]["block"]
    );
    let page = fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("C20"));

    // The same command again has nothing to measure; with other settings it is refused.
    let measured = lines(out.path());
    let output = run(&["--tiny", "--only", "C1"]);
    assert!(
        text(&output).contains("going on after"),
        "{}",
        text(&output)
    );
    assert_eq!(lines(out.path()), measured);
    let output = run(&["--quick", "--only", "C1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--fresh"), "{}", text(&output));

    // Page and picture are drawn from the results alone.
    let drawn = folder();
    fs::copy(
        out.path().join("results.json"),
        drawn.path().join("results.json"),
    )
    .unwrap();
    let redrawn = Command::new(env!("CARGO_BIN_EXE_ringlog-load"))
        .args(["claims", "--redraw"])
        .arg(drawn.path())
        .output()
        .unwrap();
    assert!(redrawn.status.success(), "{}", text(&redrawn));
    for name in ["report.html", "summary.svg"] {
        let read = |folder: &Path| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read(drawn.path()), read(out.path()), "{name}");
    }

    let path = out.path().join("results.json");
    let compared = Command::new(env!("CARGO_BIN_EXE_ringlog-load"))
        .args(["claims", "--compare"])
        .args([&path, &path])
        .output()
        .unwrap();
    assert!(
        compared.status.success() && text(&compared).contains("C1"),
        "{}",
        text(&compared)
    );
}

#[test]
fn claims_are_measured_anew_by_another_build_and_the_report_names_both() {
    let (disk, out) = (folder(), folder());
    let run = |commit: &str, arguments: &[&str]| {
        let mut command = claims(arguments, disk.path(), out.path());
        let output = command.env("RINGLOG_COMMIT", commit).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    run("first", &["--tiny", "--only", "C1,C4"]);
    let lines_before = lines(out.path());
    // Only what is asked for is measured, and nothing else is lost.
    let said = run("second", &["--tiny", "--again", "c4"]);
    assert!(
        said.contains("by first") && said.contains("by second"),
        "{said}"
    );
    assert_eq!(lines(out.path()), lines_before);

    let json = fs::read_to_string(out.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let build_of = |claim: usize| {
        let taken = &results["claims"][claim]["measurements"][0]["taken"][0];
        assert!(taken["unix_s"].as_u64().unwrap() > 1_700_000_000);
        taken["build"].as_str().unwrap().to_owned()
    };
    assert!(build_of(0).starts_with("first (load "));
    assert!(build_of(3).starts_with("second (load "));
    let builds = results["builds"].as_array().unwrap();
    let claims_of = |build: usize| builds[build]["claims"].clone();
    assert_eq!((claims_of(0), claims_of(1)), (json!(["C1"]), json!(["C4"])));
    for claim in [0, 3] {
        assert!(results["claims"][claim]["thinning"].is_object());
    }
    let page = fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("2 builds") && page.contains("first (load "));
}

#[test]
fn bad_requests_are_refused_in_a_line_before_anything_is_written() {
    let (disk, out) = (folder(), folder());
    for (arguments, reason) in [
        (&["--tiny", "--only", "C99"][..], "C99 is no claim"),
        (&["--tiny", "--only", "C20"][..], "not yet measured"),
        (&["--tiny", "--again", "C99"][..], "C99 is no claim"),
        (&["--compare", "/none", "/none"][..], "/none"),
        (&["--tiny", "--peers", "/none"][..], "/none"),
        (&["--redraw", "/none"][..], "/none"),
    ] {
        let output = claims(arguments, disk.path(), out.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output);
        assert!(said.contains(reason) && said.lines().count() == 1, "{said}");
    }
    let missing = disk.path().join("missing");
    let output = claims(&["--tiny"], &missing, out.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert_eq!((entries(disk.path()), entries(out.path())), (0, 0));
    // Not every host has memory as a directory.
    if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
        let output = claims(&["--tiny"], memory.path(), out.path())
            .output()
            .unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("tmpfs") && said.lines().count() == 1,
            "{said}"
        );
        assert_eq!((entries(memory.path()), entries(out.path())), (0, 0));
    }
}

#[test]
fn without_privilege_the_report_says_what_is_missing_and_what_to_allow() {
    let (disk, out) = (folder(), folder());
    let arguments = ["--tiny", "--only", "C2"];
    let mut command = claims(&arguments, disk.path(), out.path());
    if rustix::process::geteuid().is_root() {
        // Root without a capability is as good as anybody, and finds its files.
        let mut bare = Command::new("setpriv");
        bare.args(["--bounding-set=-all", "--inh-caps=-all"])
            .arg(command.get_program())
            .args(command.get_args());
        command = bare;
    }
    let output = command
        .output()
        .expect("setpriv (util-linux), where tests run as root");
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let json = fs::read_to_string(out.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let groups = results["host"]["groups"].as_array().unwrap();
    let refused = groups
        .iter()
        .find(|group| group["name"] == "Not allowed here");
    let facts = refused.unwrap()["facts"].as_array().unwrap();
    let costs = |what: &str| {
        let fact = facts.iter().find(|fact| fact[0] == what)?;
        Some(fact[1].as_str().unwrap().to_owned())
    };
    // Nobody makes network namespaces without privilege.
    let veth = costs("a pair of virtual Ethernet devices").unwrap();
    assert!(
        veth.contains("C2, C3 and C5") && veth.contains("To allow: root"),
        "{veth}"
    );
    assert!(
        said.contains("not allowed here: a pair of virtual Ethernet devices"),
        "{said}"
    );
    // Who counted is told the same way in the header and beside the figures.
    let claim = &results["claims"][1];
    let by_kernel = &claim["measurements"][0]["figures"]["counted_by_kernel"]["median"];
    let kernel_counts = costs("counting system calls in the kernel").is_none();
    assert_eq!(*by_kernel, f64::from(u8::from(kernel_counts)));
    assert!(claim["conclusion"]["verdict"].is_string());
    let page = fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("Not allowed here"));
    assert_eq!(entries(disk.path()), 0, "something was left on the disk");
}

#[test]
fn acks_are_measured_against_transactions_of_a_real_server() {
    let (disk, out, bin) = (folder(), folder(), folder());
    let server = server::executable(bin.path());
    let output = claims(&["--tiny", "--only", "C11"], disk.path(), out.path())
        .arg("--server")
        .arg(&server)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let json = fs::read_to_string(out.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let claim = &results["claims"][10];
    assert_eq!(claim["id"], "C11");
    let of = |side: &str, x: u64| {
        let all = claim["measurements"].as_array().unwrap().iter();
        let mut found = all.filter(|m| m["params"]["side"] == side && m["params"]["x"] == x);
        found
            .next()
            .unwrap_or_else(|| panic!("{side} {x}: {claim}"))
            .clone()
    };
    for records in [1, 10, 100, 1000] {
        let measured = of("transactions", records);
        let figure = |name: &str| measured["figures"][name]["median"].as_f64().unwrap();
        assert!(figure("records_per_s") > 0.0 && figure("transactions_per_s") > 0.0);
        assert!(figure("transaction_p50_us") >= figure("end_txn_p50_us"));
    }
    assert!(claim["conclusion"]["findings"].as_array().unwrap().len() >= 5);
    assert_eq!(entries(disk.path()), 0, "something was left on the disk");
}

#[test]
fn an_interrupted_run_leaves_no_server_behind() {
    let (disk, out, bin) = (folder(), folder(), folder());
    let server = server::executable(bin.path());
    let mut child = claims(&["--quick", "--only", "C11"], disk.path(), out.path())
        .arg("--server")
        .arg(&server)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(40);
    while !out.path().join("measurements.jsonl").exists() || lines(out.path()) < 2 {
        assert!(Instant::now() < deadline, "no measurement in 40 s");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        !servers(disk.path()).is_empty(),
        "the search for servers finds none"
    );
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert_eq!(servers(disk.path()), Vec::<u32>::new(), "a server was left");
    assert_eq!(entries(disk.path()), 0, "something was left on the disk");
}

/// Processes whose arguments or environment name a directory: the servers of a run there, but not the run itself.
fn servers(dir: &Path) -> Vec<u32> {
    let name = format!("{}/.ringlog-claims-", dir.display());
    let processes = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            String::from_utf8_lossy(&environment)
                .contains(&name)
                .then_some(pid)
        });
    processes.collect()
}

#[test]
fn an_interrupted_run_clears_up_and_goes_on_later() {
    let (disk, out) = (folder(), folder());
    let mut child = claims(&["--tiny", "--only", "C1"], disk.path(), out.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !out.path().join("measurements.jsonl").exists() || lines(out.path()) < 3 {
        assert!(Instant::now() < deadline, "no measurement in 20 s");
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(entries(disk.path()), 0, "something was left on the disk");
    let measured = lines(out.path());
    // It may have been done just before the signal.
    if status.code() == Some(2) {
        assert!(!out.path().join("report.html").exists());
    }
    let output = claims(&["--tiny", "--only", "C1"], disk.path(), out.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(lines(out.path()) >= measured);
    assert!(out.path().join("report.html").exists());
}

/// What a tiny run of one claim reports where no server can be started.
fn without_a_server(id: &str, disk: &Path) -> Value {
    let out = folder();
    let arguments = ["--tiny", "--only", id, "--server", "/no/such/server"];
    let output = claims(&arguments, disk, out.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let json = fs::read_to_string(out.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let mut claims = results["claims"].as_array().unwrap().iter();
    claims.find(|claim| claim["id"] == id).unwrap().clone()
}

#[test]
fn what_the_host_lacks_is_named_and_the_rest_is_reported() {
    let disk = folder();
    let claim = without_a_server("C15", disk.path());
    assert_eq!(claim["conclusion"]["verdict"], "cannot_be_measured");
    let why = claim["conclusion"]["why"].as_str().unwrap();
    assert!(why.contains("/no/such/server"), "{why}");
    assert_eq!(entries(disk.path()), 0, "something was left on the disk");
}

#[test]
fn stores_are_killed_and_damaged_in_processes_of_their_own() {
    let disk = folder();
    let claim = without_a_server("C9", disk.path());
    let measurements = claim["measurements"].as_array().unwrap();
    for store in ["file", "lsm", "b_tree", "sqlite"] {
        let harmed = measurements.iter().find(|m| m["params"]["harmed"] == store);
        let figures = &harmed.unwrap()["figures"];
        assert!(figures["committed"]["low"].as_f64().unwrap() > 0.0);
        assert_eq!(figures["kill_lost_per_million"]["high"], 0.0, "{store}");
        let share = |name: &str| figures[name]["median"].as_f64().unwrap();
        let all = share("flips_noticed_percent")
            + share("flips_silent_percent")
            + share("flips_harmless_percent");
        assert!((all - 100.0).abs() < 1.0, "{store} {figures}");
    }
    assert_eq!(entries(disk.path()), 0, "something was left on the disk");
}
