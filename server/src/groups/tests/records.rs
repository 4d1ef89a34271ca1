//! The records' layouts, against bytes that Apache Kafka 4.3.1 wrote to its offsets topic.

use proptest::prelude::*;

use super::super::record::{group_key, offset_key};
use super::*;

const GROUP_KEY: &str = "0002000c676f6c64656e2d67726f7570";
const GROUP_NEW: &str = "0003000000000000ffffffff000001a1fd0f795100000000";
const GROUP_STABLE: &str = "00030008636f6e73756d657200000001000572616e6765002b696e73742d312d38646335336262\
    652d386462612d346566372d616632652d323734396135346231313538000001a1fd0f796300000001002b696e73742d312d38646335336262\
    652d386462612d346566372d616632652d3237343961353462313135380006696e73742d310003636964000a2f3132372e302e302e31\
    000493e00000afc80000001c000100000001000c676f6c64656e2d746f706963000000000000000000000020000000000001\
    000c676f6c64656e2d746f706963000000010000000000000000";
const OFFSET_KEY: &str = "0001000c676f6c64656e2d67726f7570000c676f6c64656e2d746f70696300000000";
const OFFSET_VALUE: &str =
    "00040000000000000003ffffffff01000001a1fd0f88e701001065add0d45e25402fb654caa3438f550e";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

#[test]
fn keys_are_kafkas() {
    assert_eq!(group_key("golden-group"), hex(GROUP_KEY));
    assert_eq!(
        offset_key("golden-group", "golden-topic", 0),
        hex(OFFSET_KEY)
    );
    let group = StrBytes::from("golden-group");
    let topic = StrBytes::from("golden-topic");
    let key = Key::decode(&hex(GROUP_KEY)).unwrap();
    assert_eq!(
        key,
        Key::Group {
            group: group.clone()
        }
    );
    let key = Key::decode(&hex(OFFSET_KEY)).unwrap();
    assert_eq!(
        key,
        Key::Offset {
            group,
            topic,
            partition: 0
        }
    );
    assert_eq!(Key::decode(&[0, 9, 1]), Ok(Key::Other(9)));
    assert_eq!(partition_of("golden-group", 8), 5, "where Kafka put it");
}

#[test]
fn a_groups_value_is_kafkas() {
    let new = GroupValue::decode(&hex(GROUP_NEW)).unwrap();
    assert_eq!(
        (new.generation, &new.protocol, &new.leader),
        (0, &None, &None)
    );
    assert_eq!(new.state_since_ms, 1_795_247_012_177);
    assert_eq!(new.encode(), hex(GROUP_NEW));
    let stable = GroupValue::decode(&hex(GROUP_STABLE)).unwrap();
    assert_eq!(stable.protocol_type.as_str(), "consumer");
    assert_eq!(stable.protocol.as_deref(), Some("range"));
    assert_eq!(stable.generation, 1);
    let member = &stable.members[0];
    assert_eq!(Some(&member.member_id), stable.leader.as_ref());
    assert_eq!(member.instance_id.as_deref(), Some("inst-1"));
    assert_eq!(member.client_id.as_str(), "cid");
    assert_eq!(member.client_host.as_str(), "/127.0.0.1");
    assert_eq!(member.rebalance_timeout_ms, 300_000);
    assert_eq!(member.session_timeout_ms, 45_000);
    assert_eq!(
        (member.subscription.len(), member.assignment.len()),
        (28, 32)
    );
    assert_eq!(stable.encode(), hex(GROUP_STABLE));
}

#[test]
fn an_offsets_value_is_kafkas() {
    let value = CommittedOffset::decode(&hex(OFFSET_VALUE)).unwrap();
    assert_eq!((value.offset, value.leader_epoch), (3, -1));
    assert_eq!(value.commit_ms, 1_795_247_016_167);
    assert_eq!(value.expire_ms, None);
    assert_eq!(
        value.topic_id.to_string(),
        "65add0d45e25402fb654caa3438f550e"
    );
    assert_eq!(value.encode(), hex(OFFSET_VALUE));
}

#[test]
fn older_values_are_read() {
    // Version 0: offset 5, metadata "m", commit time 7. Version 3: leader epoch 2 after the offset.
    let v0 =
        CommittedOffset::decode(&hex("0000 0000000000000005 0001 6d 0000000000000007")).unwrap();
    assert_eq!((v0.offset, v0.leader_epoch, v0.commit_ms), (5, -1, 7));
    let v3 = "0003 0000000000000005 00000002 0001 6d 0000000000000007";
    let v3 = CommittedOffset::decode(&hex(v3)).unwrap();
    assert_eq!(
        (v3.offset, v3.leader_epoch, v3.metadata.as_str()),
        (5, 2, "m")
    );
    let unknown = CommittedOffset::decode(&[0, 5, 0, 0]);
    assert_eq!(unknown, Err(RecordFormatError::Version(5)));
}

proptest! {
    #[test]
    fn an_offsets_value_reads_back(
        offset: i64,
        leader_epoch: i32,
        metadata in "\\PC{0,200}",
        commit_ms: i64,
        expire_ms in prop::option::of(0..i64::MAX),
        topic_id: [u8; 16],
    ) {
        let has_expiry = expire_ms.is_some();
        let value = CommittedOffset {
            offset,
            // An older layout, which has neither, carries an expiry.
            leader_epoch: if has_expiry { -1 } else { leader_epoch },
            metadata: metadata.into(),
            commit_ms,
            expire_ms,
            topic_id: if has_expiry { TopicId::ZERO } else { TopicId(topic_id) },
        };
        prop_assert_eq!(CommittedOffset::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn garbage_is_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..80), version in 0u8..5) {
        let mut versioned = vec![0, version];
        versioned.extend_from_slice(&bytes);
        for bytes in [bytes, versioned] {
            let _ = Key::decode(&bytes);
            let _ = GroupValue::decode(&bytes);
            let _ = CommittedOffset::decode(&bytes);
        }
    }

    #[test]
    fn a_cut_value_is_refused(cut in 0usize..200) {
        let whole = hex(GROUP_STABLE);
        let cut = &whole[..cut.min(whole.len() - 1)];
        prop_assert!(GroupValue::decode(cut).is_err());
    }
}
