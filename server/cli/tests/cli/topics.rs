//! Topics made, shown, changed and deleted.

use crate::run::{fails, fed_well, json, well};
use crate::server::{Server, new_dir, ringlog};

#[test]
fn a_topic_from_its_beginning_to_its_end() {
    let data = new_dir();
    let server = Server::start(data.path());
    let made = json(&mut server.ringlog(&[
        "topic",
        "create",
        "logs",
        "-p",
        "3",
        "-c",
        "retention.ms=5000",
        "--json",
    ]));
    assert_eq!(
        (&made["created"], &made["partitions"]),
        (&true.into(), &3.into())
    );
    let again = well(&mut server.ringlog(&["topic", "create", "logs", "--if-not-exists"]));
    assert_eq!(again, "logs was there already\n");
    fed_well(
        &mut server.ringlog(&["produce", "logs", "--partition", "1"]),
        b"one\ntwo\n",
    );

    let list = json(&mut server.ringlog(&["topic", "list", "--json"]));
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["topic"], "logs");
    let described = json(&mut server.ringlog(&["topic", "describe", "logs", "--json"]));
    assert_eq!(described["id"], made["id"]);
    assert_eq!(
        described["configs"],
        serde_json::json!({ "retention.ms": "5000" })
    );
    let partitions = described["partitions"].as_array().unwrap();
    let ends: Vec<_> = partitions
        .iter()
        .map(|p| p["end"].as_i64().unwrap())
        .collect();
    assert_eq!(ends, [0, 2, 0]);
    assert!(partitions[1]["bytes"].as_i64().unwrap() > 0);
    assert_eq!(partitions[1]["leader"], 0);
    let text = well(&mut server.ringlog(&["topic", "describe", "logs"]));
    assert!(
        text.contains("retention.ms=5000") && text.contains("3 partitions"),
        "{text}"
    );

    well(&mut server.ringlog(&[
        "topic",
        "alter",
        "logs",
        "--unset",
        "retention.ms",
        "-c",
        "segment.bytes=1048576",
        "-p",
        "5",
    ]));
    let described = json(&mut server.ringlog(&["topic", "describe", "logs", "--json"]));
    assert_eq!(
        described["configs"],
        serde_json::json!({ "segment.bytes": "1048576" })
    );
    assert_eq!(described["partitions"].as_array().unwrap().len(), 5);
    let all = json(&mut server.ringlog(&["topic", "describe", "logs", "--json", "--all-configs"]));
    assert!(all["configs"].as_object().unwrap().len() > 10);

    assert_eq!(
        well(&mut server.ringlog(&["topic", "delete", "logs"])),
        "deleted logs\n"
    );
    assert_eq!(
        well(&mut server.ringlog(&["topic", "delete", "logs", "--if-exists"])),
        "logs is not there\n"
    );
    assert_eq!(
        well(&mut server.ringlog(&["topic", "list"])),
        "there are no topics; `ringlog topic create NAME` makes one\n"
    );
}

#[test]
fn errors_are_one_line_with_a_remedy() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "orders"]));
    let fails = |arguments: &[&str]| fails(&mut server.ringlog(arguments));
    assert_eq!(
        fails(&["topic", "describe", "order"]),
        (
            1,
            "there is no topic \"order\"; did you mean \"orders\"?".into()
        )
    );
    for (arguments, words) in [
        (
            &["topic", "create", "orders"][..],
            "there is a topic \"orders\" already",
        ),
        (&["topic", "create", "a/b"], "INVALID_TOPIC_EXCEPTION"),
        (&["topic", "create", "x", "-c", "nope=1"], "INVALID_CONFIG"),
        (
            &["topic", "alter", "orders", "-c", "retention.ms=soon"],
            "describe orders --all-configs",
        ),
        (&["topic", "alter", "orders", "-p", "1"], "already"),
        (&["topic", "delete", "zzz"], "there is no topic"),
        (&["consume", "orders", "-p", "7"], "no partition 7"),
        (
            &["consume", "orders", "--from", "5"],
            "offset 5 is not in orders/0, which has 0 to 0",
        ),
        (&["produce", "orders", "-p", "7"], "no partition 7"),
        (&["produce", "orders", "/nowhere/at/all"], "/nowhere/at/all"),
    ] {
        let (status, line) = fails(arguments);
        assert!(line.contains(words), "{arguments:?}: {line}");
        assert!(status == 1 || status == 2, "{arguments:?}: {status}");
    }
}

#[test]
fn a_broker_that_is_not_there_is_told_with_what_to_do() {
    let (status, line) = fails(&mut ringlog(&[
        "topic",
        "list",
        "--bootstrap",
        "127.0.0.1:1",
    ]));
    assert_eq!(status, 1);
    assert!(
        line.starts_with("no broker listens at 127.0.0.1:1; "),
        "{line}"
    );
    let (status, line) = fails(&mut ringlog(&["topic", "list", "--bootstrap", ","]));
    assert_eq!(status, 2);
    assert!(line.contains("HOST:PORT"), "{line}");
    // Something listens and is no broker.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_, line) = fails(&mut ringlog(&[
        "topic",
        "list",
        "-b",
        &address,
        "--timeout",
        "1",
    ]));
    assert!(line.contains("does not answer in time"), "{line}");
}
