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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Where webhooks of jobs without an own URL go.
    pub default_webhook_url: Option<String>,
    /// The bucket that outputs go to when the job names none; null for the managed one.
    pub default_storage_provider_id: Option<Id>,
    /// How long webhooks are tried.
    pub webhook_schedule: Schedule,
    /// How long outputs are kept after their job ended, in days.
    pub output_retention_days: u32,
    /// How long inputs that are in storage are kept, in days: copies from their job's end, uploads beyond the day that a
    /// job may wait for a node.
    pub input_retention_days: u32,
    /// How long jobs are kept after they ended, in days, and with them whatever else there is of them.
    pub job_retention_days: u32,
    /// When they were last changed, ISO 8601.
    #[cfg_attr(feature = "openapi", schemars(with = "Option<UnixMs>"))]
    pub updated_at: Option<String>,
}

/// Longest retention, in days. 0 is the shortest: gone at the first clean-up after the end.
const MAX_DAYS: u32 = 3650;

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_webhook_url: None,
            default_storage_provider_id: None,
            webhook_schedule: Schedule::default(),
            output_retention_days: 7,
            input_retention_days: 1,
            job_retention_days: 30,
            updated_at: None,
        }
    }
}

/// What is over: whatever ended at or before these times, in ms since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    /// Outputs of jobs that ended by then.
    pub outputs: UnixMs,
    /// Jobs that ended by then.
    pub jobs: UnixMs,
}

impl Settings {
    /// What is no longer kept.
    pub fn cutoffs(&self, now: UnixMs) -> Cutoffs {
        let before = |days: u32| now.plus(-i64::from(days) * 24 * 3600 * 1000);
        Cutoffs { outputs: before(self.output_retention_days), jobs: before(self.job_retention_days) }
    }

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
        let unset = Self::default();
        for (name, days, unset) in [
            ("outputRetentionDays", &mut merged.output_retention_days, unset.output_retention_days),
            ("inputRetentionDays", &mut merged.input_retention_days, unset.input_retention_days),
            ("jobRetentionDays", &mut merged.job_retention_days, unset.job_retention_days),
        ] {
            if let Some(wanted) = fields.nullable(name, |field| field.integer(0, MAX_DAYS)) {
                *days = wanted.unwrap_or(unset);
            }
        }
        // What was read can be sent back as it was.
        fields.nullable("updatedAt", |field| match field.string() {
            Some(_) => Some(()),
            None => field.refuse("is set by the service; leave it out, or send it as it was read"),
        });
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
    fn what_was_read_can_be_sent_back() {
        let set = merge(&Settings::default(), &json!({"defaultStorageProviderId": PROVIDER})).expect("valid");
        let read = serde_json::to_value(&set).expect("JSON");
        assert_eq!(merge(&set, &read).expect("valid"), set);
        assert_eq!(merge(&set, &json!({"updatedAt": "never"})).expect("valid"), set, "it is ignored");
        let problems = merge(&set, &json!({"updatedAt": 7})).expect_err("invalid").to_string();
        assert!(problems.starts_with("updatedAt: is set by the service"), "{problems}");
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
    fn retention_is_merged_in_days_and_null_gives_the_default_back() {
        let set =
            merge(&Settings::default(), &json!({"outputRetentionDays": 0, "jobRetentionDays": 90})).expect("valid");
        assert_eq!((set.output_retention_days, set.input_retention_days, set.job_retention_days), (0, 1, 90));
        let back = merge(&set, &json!({"outputRetentionDays": null})).expect("valid");
        assert_eq!((back.output_retention_days, back.job_retention_days), (7, 90));
        for wrong in [json!(-1), json!(1.5), json!("7"), json!(3651), json!(true)] {
            let problems = merge(&set, &json!({"jobRetentionDays": wrong})).expect_err("invalid").to_string();
            assert!(problems.starts_with("jobRetentionDays: must be 0 to 3650"), "{problems}");
        }
    }

    #[test]
    fn what_ended_as_long_ago_as_retention_says_is_over() {
        const DAY: i64 = 24 * 3600 * 1000;
        let now = UnixMs(100 * DAY);
        let cutoffs = Settings { output_retention_days: 0, ..Settings::default() }.cutoffs(now);
        let expected = Cutoffs { outputs: now, jobs: UnixMs(70 * DAY) };
        assert_eq!(cutoffs, expected);
    }

    #[test]
    fn every_problem_is_named_by_its_key() {
        let body = json!({"defaultWebhookUrl": "http://example.com", "defaultWebhookURL": 1});
        let problems = merge(&Settings::default(), &body).expect_err("invalid").to_string();
        assert!(problems.contains("defaultWebhookUrl: must be https"), "{problems}");
        assert!(problems.contains("defaultWebhookURL: unknown field"), "{problems}");
    }
}
