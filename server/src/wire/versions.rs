//! Which requests are served, in which versions. The lowest versions are Kafka 4's: clients decide by them what a
//! broker can do.

/// One API as it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// Its number in the protocol.
    pub key: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// Lowest version advertised.
    pub advertised_min: i16,
    /// Lowest version served.
    pub min: i16,
    /// Highest version served.
    pub max: i16,
    /// First version with the compact encodings and tagged fields of KIP-482; `i16::MAX` when there is none.
    pub flexible_from: i16,
}

impl Api {
    /// Whether requests of `version` are served.
    #[must_use]
    pub fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether `version` has compact encodings and tagged fields.
    #[must_use]
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }
}

macro_rules! apis {
    ($($constant:ident $key:literal $name:ident $min:literal..=$max:literal flexible $flexible:literal;)*) => {
        $(
            #[doc = concat!("The number of ", stringify!($name), ".")]
            pub const $constant: i16 = $key;
        )*
        /// Every API that is served, by number.
        pub const APIS: &[Api] = &[
            $(Api {
                key: $key,
                name: stringify!($name),
                // librdkafka compresses only for brokers that advertise Produce from version 0 (KIP-896 says so too).
                advertised_min: if $key == 0 { 0 } else { $min },
                min: $min,
                max: $max,
                flexible_from: $flexible,
            },)*
        ];
    };
}

apis! {
    PRODUCE 0 Produce 3..=12 flexible 9;
    FETCH 1 Fetch 4..=12 flexible 12;
    LIST_OFFSETS 2 ListOffsets 1..=7 flexible 6;
    METADATA 3 Metadata 0..=12 flexible 9;
    OFFSET_COMMIT 8 OffsetCommit 2..=10 flexible 8;
    OFFSET_FETCH 9 OffsetFetch 1..=10 flexible 6;
    FIND_COORDINATOR 10 FindCoordinator 0..=4 flexible 3;
    JOIN_GROUP 11 JoinGroup 0..=9 flexible 6;
    HEARTBEAT 12 Heartbeat 0..=4 flexible 4;
    LEAVE_GROUP 13 LeaveGroup 0..=5 flexible 4;
    SYNC_GROUP 14 SyncGroup 0..=5 flexible 4;
    DESCRIBE_GROUPS 15 DescribeGroups 0..=6 flexible 5;
    LIST_GROUPS 16 ListGroups 0..=5 flexible 3;
    API_VERSIONS 18 ApiVersions 0..=4 flexible 3;
    CREATE_TOPICS 19 CreateTopics 2..=7 flexible 5;
    DELETE_TOPICS 20 DeleteTopics 1..=6 flexible 4;
    DELETE_RECORDS 21 DeleteRecords 0..=2 flexible 2;
    INIT_PRODUCER_ID 22 InitProducerId 0..=5 flexible 2;
    OFFSET_FOR_LEADER_EPOCH 23 OffsetForLeaderEpoch 2..=4 flexible 4;
    ADD_PARTITIONS_TO_TXN 24 AddPartitionsToTxn 0..=5 flexible 3;
    ADD_OFFSETS_TO_TXN 25 AddOffsetsToTxn 0..=4 flexible 3;
    END_TXN 26 EndTxn 0..=5 flexible 3;
    WRITE_TXN_MARKERS 27 WriteTxnMarkers 1..=1 flexible 1;
    TXN_OFFSET_COMMIT 28 TxnOffsetCommit 0..=5 flexible 3;
    DESCRIBE_CONFIGS 32 DescribeConfigs 1..=4 flexible 4;
    ALTER_CONFIGS 33 AlterConfigs 0..=2 flexible 2;
    ALTER_REPLICA_LOG_DIRS 34 AlterReplicaLogDirs 1..=2 flexible 2;
    DESCRIBE_LOG_DIRS 35 DescribeLogDirs 1..=4 flexible 2;
    CREATE_PARTITIONS 37 CreatePartitions 0..=3 flexible 2;
    DELETE_GROUPS 42 DeleteGroups 0..=3 flexible 2;
    ELECT_LEADERS 43 ElectLeaders 0..=2 flexible 2;
    INCREMENTAL_ALTER_CONFIGS 44 IncrementalAlterConfigs 0..=1 flexible 1;
    ALTER_PARTITION_REASSIGNMENTS 45 AlterPartitionReassignments 0..=1 flexible 0;
    LIST_PARTITION_REASSIGNMENTS 46 ListPartitionReassignments 0..=0 flexible 0;
    OFFSET_DELETE 47 OffsetDelete 0..=0 flexible 32767;
    DESCRIBE_QUORUM 55 DescribeQuorum 0..=2 flexible 0;
    DESCRIBE_CLUSTER 60 DescribeCluster 0..=2 flexible 0;
    DESCRIBE_PRODUCERS 61 DescribeProducers 0..=0 flexible 0;
    DESCRIBE_TRANSACTIONS 65 DescribeTransactions 0..=0 flexible 0;
    LIST_TRANSACTIONS 66 ListTransactions 0..=1 flexible 0;
    CONSUMER_GROUP_HEARTBEAT 68 ConsumerGroupHeartbeat 0..=1 flexible 0;
    CONSUMER_GROUP_DESCRIBE 69 ConsumerGroupDescribe 0..=1 flexible 0;
    LIST_CONFIG_RESOURCES 74 ListConfigResources 0..=1 flexible 0;
    DESCRIBE_TOPIC_PARTITIONS 75 DescribeTopicPartitions 0..=0 flexible 0;
}

/// The API with number `key`, if it is served.
#[must_use]
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key)
        .ok()
        .map(|at| &APIS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_agrees_with_kafkas_schemas() {
        assert!(APIS.is_sorted_by_key(|api| api.key));
        for api in APIS {
            let schema = kafka_wire::MESSAGE_DESCRIPTORS
                .iter()
                .find(|m| {
                    m.api_key.value() == api.key
                        && m.direction == kafka_wire::MessageDirection::Request
                })
                .expect("Kafka knows the API");
            assert_eq!(schema.name, format!("{}Request", api.name));
            assert_eq!(schema.supported_versions.min().value(), api.min, "{api:?}");
            assert!(
                schema.supported_versions.max().value() >= api.max,
                "{api:?}"
            );
            let flexible = schema.flexible_versions;
            let flexible = flexible.map_or(i16::MAX, |range| range.min().value());
            assert_eq!(flexible, api.flexible_from, "{api:?}");
        }
    }
}
