//! Running `ringlog` and looking at what it says.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::Value;

/// Runs a command that must do well; its standard output.
pub(crate) fn well(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("starts");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {stderr}");
    String::from_utf8(stdout).expect("text")
}

/// Runs a command that must do well and print JSON.
pub(crate) fn json(command: &mut Command) -> Value {
    let text = well(command);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

/// Runs a command that must fail; its status and the one line it says.
pub(crate) fn fails(command: &mut Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().expect("starts");
    let text = String::from_utf8(stderr).expect("text");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{command:?}: one line: {text:?}");
    let line = lines[0].strip_prefix("error: ").expect("an error");
    (status.code().expect("no signal"), line.to_owned())
}

/// Runs a command with something on standard input; what it ends with.
pub(crate) fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A command that fails early closes its end.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("ends");
    writer.join().expect("no panic");
    output
}

/// The same for a command that must do well; its standard output.
pub(crate) fn fed_well(command: &mut Command, input: &[u8]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = fed(command, input);
    assert!(
        status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).expect("text")
}
