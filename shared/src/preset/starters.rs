//! Presets that every account has.

use super::Preset;
use crate::json;

/// The starters, most useful first. Their ids can be used as `presetId`; they cannot be changed.
pub fn starters() -> Vec<Preset> {
    json::from_str(include_str!("starters.json")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        net::Policy,
        preset::{PresetRequest, merge},
        request::JobRequest,
    };

    #[test]
    fn every_starter_runs_with_nothing_but_an_input() {
        for starter in starters() {
            let body = json!({"presetId": starter.id, "input": {"url": "https://media.example/a.mov"}});
            let parsed = JobRequest::parse(&merge(&starter.config, &body), Policy::default());
            assert!(parsed.is_ok(), "{}: {parsed:?}", starter.id);
        }
    }

    #[test]
    fn every_starter_can_be_saved_under_another_name_and_no_id_stands_twice() {
        let mut seen = std::collections::HashSet::new();
        for starter in starters() {
            let body = json!({"name": starter.name, "description": starter.description, "config": starter.config});
            let parsed = PresetRequest::parse(&body, Policy::default());
            assert!(parsed.is_ok(), "{}: {parsed:?}", starter.id);
            assert!(seen.insert(starter.id));
        }
        assert_eq!(seen.len(), 10);
    }
}
