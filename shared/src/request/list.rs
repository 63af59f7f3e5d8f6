//! The query of `GET /v1/jobs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Field, Fields, Invalid};
use crate::{id::Id, job::JobState};

/// Jobs in one answer when the query does not say.
const LIMIT: u32 = 50;
/// Most jobs in one answer.
const MAX_LIMIT: u32 = 100;

/// Which jobs are wanted, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// At most this many.
    pub limit: u32,
    /// Only those that are older than this one. A position: the job itself may be gone.
    pub before: Option<Id>,
}

impl ListQuery {
    /// Reads the decoded pairs of a query string. Strict: unknown and repeated parameters are problems.
    pub fn parse(pairs: impl Iterator<Item = (String, String)>) -> Result<Self, Invalid> {
        let mut body = Map::new();
        let mut twice = Vec::new();
        for (name, value) in pairs {
            if body.insert(name.clone(), value.into()).is_some() {
                twice.push(name);
            }
        }
        let mut fields = Fields::of_body(&Value::Object(body))?;
        for name in twice {
            fields.problem(&name, "must be given once");
        }
        let state = fields.optional("state", state);
        let limit = fields.optional("limit", limit);
        let before = fields.optional("cursor", cursor);
        fields.finish()?;
        Ok(Self { state, limit: limit.unwrap_or(LIMIT), before })
    }
}

fn state(field: Field) -> Option<JobState> {
    let named = |name: &str| JobState::ALL.into_iter().find(|state| state.name() == name);
    match field.string().and_then(named) {
        Some(state) => Some(state),
        None => field.refuse(&format!("must be one of {}", JobState::ALL.map(JobState::name).join(", "))),
    }
}

fn limit(field: Field) -> Option<u32> {
    let number = field.string().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match number.and_then(|text| text.parse().ok()).filter(|limit| (1..=MAX_LIMIT).contains(limit)) {
        Some(limit) => Some(limit),
        None => field.refuse(&format!("must be 1 to {MAX_LIMIT}, a whole number")),
    }
}

fn cursor(field: Field) -> Option<Id> {
    match field.string().and_then(|text| text.parse().ok()) {
        Some(id) => Some(id),
        None => field.refuse("must be the `nextCursor` of an earlier answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &[(&str, &str)]) -> Result<ListQuery, String> {
        let pairs = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ListQuery::parse(pairs).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_query_says_what_it_says_and_the_rest_is_the_default() {
        let id = "01J00000000000000000000000";
        let all = ListQuery { state: None, limit: 50, before: None };
        assert_eq!(parse(&[]), Ok(all));
        assert_eq!(parse(&[("limit", "100")]), Ok(ListQuery { limit: 100, ..all }));
        assert_eq!(parse(&[("state", "failed")]), Ok(ListQuery { state: Some(JobState::Failed), ..all }));
        assert_eq!(parse(&[("cursor", id)]), Ok(ListQuery { before: id.parse().ok(), ..all }));
    }

    #[test]
    fn every_problem_names_its_parameter() {
        for (query, problem) in [
            (("limit", "0"), "limit: must be 1 to 100"),
            (("limit", "101"), "limit: must be 1 to 100"),
            (("limit", "+5"), "limit: must be 1 to 100"),
            (("limit", ""), "limit: must be 1 to 100"),
            (("limit", "99999999999999999999"), "limit: must be 1 to 100"),
            (("state", "done"), "state: must be one of queued, probing"),
            (("state", "Failed"), "state: must be one of"),
            (("cursor", "abc"), "cursor: must be the `nextCursor`"),
            (("page", "2"), "page: unknown field; known here: state, limit, cursor"),
        ] {
            let problems = parse(&[query]).expect_err("invalid");
            assert!(problems.starts_with(problem), "{query:?}: {problems}");
        }
        let problems = parse(&[("limit", "x"), ("state", "y"), ("limit", "5")]).expect_err("invalid");
        assert_eq!(problems.matches("; ").count(), 1, "{problems}");
        assert!(problems.contains("limit: must be given once") && problems.contains("state:"), "{problems}");
    }
}
