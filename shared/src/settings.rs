//! The account's settings.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    delivery::Schedule,
    net::Policy,
    request::{Field, Fields, Invalid},
    time::UnixMs,
};

/// Settings, as stored and as answered. Null when unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Where webhooks of jobs without an own URL go.
    pub default_webhook_url: Option<String>,
    /// The bucket that outputs go to when the job names none. Always null until own buckets can be added.
    pub default_storage_provider_id: Option<String>,
    /// How long webhooks are tried.
    pub webhook_schedule: Schedule,
    /// When they were last changed, ISO 8601.
    #[cfg_attr(feature = "openapi", schemars(with = "Option<UnixMs>"))]
    pub updated_at: Option<String>,
}

impl Settings {
    /// Merges the keys of a request body into these settings. Null clears; a key that is absent changes nothing.
    pub fn merge(&self, body: &Value, policy: Policy, now: UnixMs) -> Result<Self, Invalid> {
        let mut fields = Fields::of_body(body)?;
        let mut merged = self.clone();
        if let Some(url) = fields.nullable("defaultWebhookUrl", |field| field.url(policy)) {
            merged.default_webhook_url = url;
        }
        if let Some(Some(_)) = fields.nullable("defaultStorageProviderId", |field| field.text(1, 64)) {
            fields.problem("defaultStorageProviderId", "names no storage provider of this installation");
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

    fn merge(from: &Settings, body: &Value) -> Result<Settings, Invalid> {
        from.merge(body, Policy::default(), UnixMs(0))
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
    fn every_problem_is_named_by_its_key() {
        let body = json!({"defaultWebhookUrl": "http://example.com", "defaultWebhookURL": 1});
        let problems = merge(&Settings::default(), &body).expect_err("invalid").to_string();
        assert!(problems.contains("defaultWebhookUrl: must be https"), "{problems}");
        assert!(problems.contains("defaultWebhookURL: unknown field"), "{problems}");
    }
}
