//! A cluster as a command sees it: who its brokers are, and a connection to each that is needed.

mod groups;
mod offsets;
mod topics;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kafka_wire::RequestResponsePair;
use ringlog_load::protocol::{ControlClient, ControlError};

use crate::failure::{Failure, Outcome};

pub(crate) use groups::{Committed, Group, Listed, Member};
pub(crate) use offsets::{At, Isolation};
pub(crate) use topics::{Topic, TopicPartition, alike, words};

/// Name under which the command line is known to brokers.
const CLIENT_ID: &str = "ringlog";
/// Port of an address that names none.
const PORT: &str = "9092";

/// Where the cluster is.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct Connect {
    /// Brokers to ask first, HOST:PORT, separated by commas.
    #[arg(
        long,
        short = 'b',
        env = "RINGLOG_BOOTSTRAP",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092"
    )]
    pub(crate) bootstrap: String,
    /// Longest wait for a connection and for each answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

impl Connect {
    /// Longest wait for a connection and for each answer.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    fn addresses(&self) -> Vec<String> {
        let given = self.bootstrap.split(',').map(str::trim);
        given
            .filter(|address| !address.is_empty())
            .map(|address| match address.contains(':') {
                true => address.to_owned(),
                false => format!("{address}:{PORT}"),
            })
            .collect()
    }
}

/// A cluster.
#[derive(Debug)]
pub(crate) struct Client {
    bootstrap: Vec<String>,
    timeout: Duration,
    /// Node ids and addresses, as the last Metadata said.
    brokers: BTreeMap<i32, String>,
    connections: HashMap<String, ControlClient>,
}

impl Client {
    /// Connects to the first bootstrap address that answers.
    pub(crate) fn connect(to: &Connect) -> Outcome<Self> {
        let mut client = Self {
            bootstrap: to.addresses(),
            timeout: to.timeout(),
            brokers: BTreeMap::new(),
            connections: HashMap::new(),
        };
        client.any()?;
        Ok(client)
    }

    /// Longest wait for a connection and for each answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks any broker.
    pub(crate) fn call_any<R: RequestResponsePair>(
        &mut self,
        request: &R,
        version_max: i16,
    ) -> Outcome<R::Response> {
        let address = self.any()?;
        self.call_at(&address, request, version_max)
    }

    /// Asks the broker with this node id, which Metadata must have named.
    pub(crate) fn call_node<R: RequestResponsePair>(
        &mut self,
        node: i32,
        request: &R,
        version_max: i16,
    ) -> Outcome<R::Response> {
        let address = self.address(node)?;
        if !self.connections.contains_key(&address) {
            let connection = self.connection(node)?;
            self.connections.insert(address.clone(), connection);
        }
        self.call_at(&address, request, version_max)
    }

    /// Node ids of the brokers that the last Metadata named.
    pub(crate) fn nodes(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// Address of a broker that the last Metadata named.
    pub(crate) fn address(&self, node: i32) -> Outcome<String> {
        self.brokers.get(&node).cloned().ok_or_else(|| {
            Failure::new(format!("the cluster names no broker {node}")).remedy(
                "a partition without a leader cannot be read or written: see the brokers' logs",
            )
        })
    }

    /// A connection of its own to a broker.
    pub(crate) fn connection(&self, node: i32) -> Outcome<ControlClient> {
        let address = self.address(node)?;
        ControlClient::connect_as(CLIENT_ID, &address, self.timeout).map_err(|error| match error {
            ControlError::Io { source, .. } if !self.bootstrap.contains(&address) => Failure::new(
                format!("broker {node} says that its address is {address}, where it cannot be reached ({source})"),
            )
            .remedy("brokers must advertise an address that clients can reach (ringlog-server --advertise HOST)"),
            error => error.into(),
        })
    }

    fn call_at<R: RequestResponsePair>(
        &mut self,
        address: &str,
        request: &R,
        version_max: i16,
    ) -> Outcome<R::Response> {
        let Some(connection) = self.connections.get_mut(address) else {
            return Err(Failure::new(format!("no connection to {address}")));
        };
        let answer = connection.call(request, version_max);
        if matches!(
            answer,
            Err(ControlError::Io { .. } | ControlError::Decode { .. })
        ) {
            // Whatever comes next on it would be taken for the answer to something else.
            self.connections.remove(address);
        }
        Ok(answer?)
    }

    /// Address of a bootstrap broker that there is a connection to.
    fn any(&mut self) -> Outcome<String> {
        let connected = |address: &&String| self.connections.contains_key(*address);
        if let Some(address) = self.bootstrap.iter().find(connected) {
            return Ok(address.clone());
        }
        let mut last = None;
        for address in &self.bootstrap {
            match ControlClient::connect_as(CLIENT_ID, address, self.timeout) {
                Ok(connection) => {
                    self.connections.insert(address.clone(), connection);
                    return Ok(address.clone());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(
            || {
                Failure::unusable("--bootstrap names no broker")
                    .remedy("HOST:PORT is wanted, several separated by commas")
            },
            Failure::from,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_leave_out_the_port() {
        let connect = Connect {
            bootstrap: "a, b:1,,c".into(),
            timeout: 1,
        };
        assert_eq!(connect.addresses(), ["a:9092", "b:1", "c:9092"]);
    }
}
