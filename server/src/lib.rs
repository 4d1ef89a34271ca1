//! The ringlog server: Kafka protocol over the engine's shards.
