//! A topic's settings, read and changed.

use kafka_wire::describe_configs_request::DescribeConfigsResource;
use kafka_wire::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_wire::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use kafka_wire_core::StrBytes;
use ringlog_load::protocol::ControlError;

use super::Setting;
use crate::client::{Client, words};
use crate::failure::{Failure, Outcome};

const DESCRIBE_CONFIGS: i16 = 4;
const INCREMENTAL_ALTER_CONFIGS: i16 = 1;
/// Resource type of a topic.
const TOPIC: i8 = 2;
/// Source of a setting that was made for the topic itself.
const OWN: i8 = 1;
/// Operation that sets a value.
const SET: i8 = 0;
/// Operation that goes back to the default.
const UNSET: i8 = 1;

/// A setting as the broker tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) value: Option<String>,
    /// It was made for the topic; else it is a default.
    pub(super) own: bool,
}

/// The settings of a topic, by name.
pub(super) fn read(client: &mut Client, topic: &str) -> Outcome<Vec<Config>> {
    let mut resource = DescribeConfigsResource::default();
    resource.resource_type = TOPIC;
    resource.resource_name = StrBytes::from(topic);
    let mut request = DescribeConfigsRequest::default();
    request.resources = vec![resource];
    let answer = client.call_any(&request, DESCRIBE_CONFIGS)?;
    let Some(result) = answer.results.first() else {
        return Err(Failure::new(format!(
            "the broker says nothing of topic {topic}"
        )));
    };
    if result.error_code != 0 {
        let said = words(result.error_message.as_ref());
        let what = format!("settings of topic {topic:?}");
        return Err(ControlError::refused(what, result.error_code, said).into());
    }
    let mut configs: Vec<_> = result
        .configs
        .iter()
        .map(|config| Config {
            name: config.name.as_str().to_owned(),
            value: config.value.as_ref().map(|value| value.as_str().to_owned()),
            own: config.config_source == OWN,
        })
        .collect();
    configs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(configs)
}

/// Sets and unsets settings, all or none.
pub(super) fn change(
    client: &mut Client,
    topic: &str,
    set: &[Setting],
    unset: &[String],
) -> Outcome {
    let one = |name: &str, operation, value: Option<&str>| {
        let mut config = AlterableConfig::default();
        config.name = StrBytes::from(name);
        config.config_operation = operation;
        config.value = value.map(StrBytes::from);
        config
    };
    let sets = set
        .iter()
        .map(|setting| one(&setting.name, SET, Some(&setting.value)));
    let unsets = unset.iter().map(|name| one(name, UNSET, None));
    let mut resource = AlterConfigsResource::default();
    resource.resource_type = TOPIC;
    resource.resource_name = StrBytes::from(topic);
    resource.configs = sets.chain(unsets).collect();
    let mut request = IncrementalAlterConfigsRequest::default();
    request.resources = vec![resource];
    let answer = client.call_any(&request, INCREMENTAL_ALTER_CONFIGS)?;
    match answer.responses.first() {
        Some(result) if result.error_code != 0 => {
            let said = words(result.error_message.as_ref());
            let what = format!("settings of topic {topic:?}");
            let failure = Failure::from(ControlError::refused(what, result.error_code, said));
            Err(failure.remedy(format!(
                "`ringlog topic describe {topic} --all-configs` shows every name and value"
            )))
        }
        _ => Ok(()),
    }
}
