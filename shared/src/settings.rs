//! The account's settings.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    delivery::Schedule,
    id::Id,
    net::Policy,
    provider::NO_PROVIDER,
    request::{Field, Fields, Invalid, provider_id},
    time::UnixMs,
};

/// Settings, as stored and as answered. Null when unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Where webhooks of jobs without an own URL go.
    pub default_webhook_url: Option<String>,
    /// The bucket that outputs go to when the job names none; null for the managed one.
    pub default_storage_provider_id: Option<Id>,
    /// How long webhooks are tried.
    pub webhook_schedule: Schedule,
    /// When they were last changed, ISO 8601.
    #[cfg_attr(feature = "openapi", schemars(with = "Option<UnixMs>"))]
    pub updated_at: Option<String>,
}

impl Settings {
    /// Merges the keys of a request body into these settings. Null clears; a key that is absent changes nothing.
    /// `known` says whether there is a storage provider of an id.
    pub fn merge(
        &self,
        body: &Value,
        policy: Policy,
        known: impl Fn(Id) -> bool,
        now: UnixMs,
    ) -> Result<Self, Invalid> {
        let mut fields = Fields::of_body(body)?;
        let mut merged = self.clone();
        if let Some(url) = fields.nullable("defaultWebhookUrl", |field| field.url(policy)) {
            merged.default_webhook_url = url;
        }
        if let Some(id) = fields.nullable("defaultStorageProviderId", provider_id) {
            if id.is_some_and(|id| !known(id)) {
                fields.problem("defaultStorageProviderId", NO_PROVIDER);
            }
            merged.default_storage_provider_id = id;
        }
        if let Some(schedule) = fields.nullable("webhookSchedule", schedule) {
            merged.webhook_schedule = schedule.unwrap_or_default();
        }
        fields.finish()?;
        merged.updated_at = Some(now.to_iso());
        Ok(merged)
    }
}

fn schedule(field: Field) -> Option<Schedule> {
    match field.string() {
        Some("standard") => Some(Schedule::Standard),
        Some("durable") => Some(Schedule::Durable),
        _ => field.refuse("must be one of standard, durable"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROVIDER: &str = "01M86XHHP6260EWAT1TBY7T000";

    fn merge(from: &Settings, body: &Value) -> Result<Settings, Invalid> {
        from.merge(body, Policy::default(), |id| id.to_string() == PROVIDER, UnixMs(0))
    }

    #[test]
    fn given_keys_are_merged_null_clears_and_absent_keys_stay() {
        let set = merge(&Settings::default(), &json!({"defaultWebhookUrl": "https://example.com/a"})).expect("valid");
        assert_eq!(set.default_webhook_url.as_deref(), Some("https://example.com/a"));
        let same = merge(&set, &json!({})).expect("valid");
        assert_eq!(same.default_webhook_url, set.default_webhook_url);
        let cleared = merge(&set, &json!({"defaultWebhookUrl": null})).expect("valid");
        assert_eq!(cleared.default_webhook_url, None);
    }

    #[test]
    fn the_default_storage_provider_is_one_that_there_is() {
        let set = merge(&Settings::default(), &json!({"defaultStorageProviderId": PROVIDER})).expect("valid");
        assert_eq!(set.default_storage_provider_id, PROVIDER.parse().ok());
        let cleared = merge(&set, &json!({"defaultStorageProviderId": null})).expect("valid");
        assert_eq!(cleared.default_storage_provider_id, None);
        for (wrong, problem) in
            [(json!("01M86XHHP6260EWAT1TBY7T001"), "names no storage provider"), (json!(7), "must be an id")]
        {
            let problems = merge(&set, &json!({"defaultStorageProviderId": wrong})).expect_err("invalid").to_string();
            assert!(problems.starts_with(&format!("defaultStorageProviderId: {problem}")), "{problems}");
        }
    }

    #[test]
    fn every_problem_is_named_by_its_key() {
        let body = json!({"defaultWebhookUrl": "http://example.com", "defaultWebhookURL": 1});
        let problems = merge(&Settings::default(), &body).expect_err("invalid").to_string();
        assert!(problems.contains("defaultWebhookUrl: must be https"), "{problems}");
        assert!(problems.contains("defaultWebhookURL: unknown field"), "{problems}");
    }
}
