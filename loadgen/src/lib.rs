//! Load generator for any broker that speaks the Kafka protocol.
