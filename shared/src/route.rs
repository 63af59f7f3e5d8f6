//! Which method and path does what: the one table, from which the edge routes and the API's description is made.

use crate::protocol;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table says which path each is")]
pub enum Route {
    Health,
    CreateJob,
    ListJobs,
    ReadJob,
    DeleteJob,
    JobEvents,
    CancelJob,
    RetryJob,
    Deliveries,
    Redeliver,
    CreateUpload,
    ReadUpload,
    ReadSettings,
    MergeSettings,
    TestWebhook,
    ReadSecret,
    RotateSecret,
    CreateProvider,
    ListProviders,
    ReadProvider,
    DeleteProvider,
    TestProvider,
    Starters,
    CreatePreset,
    ListPresets,
    ReadPreset,
    ReplacePreset,
    DeletePreset,
    CreateToken,
    ListTokens,
    RevokeToken,
    ListNodes,
    Lease,
    Heartbeat,
    OutputBegin,
    OutputTargets,
    OutputFinish,
    InputBegin,
    InputFinish,
    Complete,
    Fail,
    Release,
}

/// Methods and paths. `:id` stands for one segment. Those under `/v1` are answered under `/api` as well. The first
/// pattern that fits a path is the one that counts.
pub const ROUTES: &[(&str, &str, Route)] = &[
    ("GET", "/healthz", Route::Health),
    ("HEAD", "/healthz", Route::Health),
    ("POST", "/v1/jobs", Route::CreateJob),
    ("GET", "/v1/jobs", Route::ListJobs),
    ("GET", "/v1/jobs/:id", Route::ReadJob),
    ("DELETE", "/v1/jobs/:id", Route::DeleteJob),
    ("GET", "/v1/jobs/:id/events", Route::JobEvents),
    ("POST", "/v1/jobs/:id/cancel", Route::CancelJob),
    ("POST", "/v1/jobs/:id/retry", Route::RetryJob),
    ("GET", "/v1/jobs/:id/deliveries", Route::Deliveries),
    ("POST", "/v1/deliveries/:id/redeliver", Route::Redeliver),
    ("POST", "/v1/uploads", Route::CreateUpload),
    ("GET", "/v1/uploads/:id", Route::ReadUpload),
    ("GET", "/v1/settings", Route::ReadSettings),
    ("POST", "/v1/settings", Route::MergeSettings),
    ("PUT", "/v1/settings", Route::MergeSettings),
    ("POST", "/v1/settings/webhook/test", Route::TestWebhook),
    ("GET", "/v1/settings/webhook/secret", Route::ReadSecret),
    ("POST", "/v1/settings/webhook/secret/rotate", Route::RotateSecret),
    ("POST", "/v1/settings/storage-providers", Route::CreateProvider),
    ("GET", "/v1/settings/storage-providers", Route::ListProviders),
    ("GET", "/v1/settings/storage-providers/:id", Route::ReadProvider),
    ("DELETE", "/v1/settings/storage-providers/:id", Route::DeleteProvider),
    ("POST", "/v1/settings/storage-providers/:id/test", Route::TestProvider),
    ("GET", "/v1/presets/starters", Route::Starters),
    ("POST", "/v1/presets", Route::CreatePreset),
    ("GET", "/v1/presets", Route::ListPresets),
    ("GET", "/v1/presets/:id", Route::ReadPreset),
    ("PUT", "/v1/presets/:id", Route::ReplacePreset),
    ("DELETE", "/v1/presets/:id", Route::DeletePreset),
    ("POST", "/v1/tokens", Route::CreateToken),
    ("GET", "/v1/tokens", Route::ListTokens),
    ("DELETE", "/v1/tokens/:id", Route::RevokeToken),
    ("GET", "/v1/nodes", Route::ListNodes),
    ("POST", protocol::LEASE, Route::Lease),
    ("POST", protocol::HEARTBEAT, Route::Heartbeat),
    ("POST", protocol::OUTPUT_BEGIN, Route::OutputBegin),
    ("POST", protocol::OUTPUT_TARGETS, Route::OutputTargets),
    ("POST", protocol::OUTPUT_FINISH, Route::OutputFinish),
    ("POST", protocol::INPUT_BEGIN, Route::InputBegin),
    ("POST", protocol::INPUT_FINISH, Route::InputFinish),
    ("POST", protocol::COMPLETE, Route::Complete),
    ("POST", protocol::FAIL, Route::Fail),
    ("POST", protocol::RELEASE, Route::Release),
];

/// Why nothing answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No pattern fits the path.
    Path,
    /// The path is there, for other methods.
    Method,
}

/// The path that the table knows, of one that may begin with `/api`.
pub fn canonical(path: &str) -> &str {
    path.strip_prefix("/api").filter(|rest| rest.starts_with("/v1/")).unwrap_or(path)
}

/// Finds the route, and the id in its path (empty where the pattern has none).
pub fn find<'a>(method: &str, path: &'a str) -> Result<(Route, &'a str), NoRoute> {
    let (pattern, id) = pattern_of(path).ok_or(NoRoute::Path)?;
    let row = ROUTES.iter().find(|(each, row, _)| *each == method && *row == pattern);
    row.map(|(_, _, route)| (*route, id)).ok_or(NoRoute::Method)
}

/// The methods that a path is there for.
pub fn allowed(path: &str) -> String {
    if path.starts_with("/files/") {
        return "GET, HEAD, PUT".to_owned();
    }
    let pattern = pattern_of(path).map(|(pattern, _)| pattern);
    let here = ROUTES.iter().filter(|(_, row, _)| Some(*row) == pattern);
    here.map(|(method, _, _)| *method).collect::<Vec<_>>().join(", ")
}

/// The first pattern that fits, and the id in the path.
fn pattern_of(path: &str) -> Option<(&'static str, &str)> {
    ROUTES.iter().find_map(|(_, pattern, _)| Some((*pattern, id_in(pattern, path)?)))
}

/// The id in the path; none if the path does not fit the pattern.
fn id_in<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let mut id = "";
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        match segments.next()? {
            segment if wanted == ":id" => id = segment,
            segment if wanted == segment => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_finds_what_the_table_says() {
        let table = [
            ("GET", "/healthz", Ok((Route::Health, ""))),
            ("POST", "/v1/jobs", Ok((Route::CreateJob, ""))),
            ("GET", "/v1/jobs/01J", Ok((Route::ReadJob, "01J"))),
            ("GET", "/v1/jobs/", Ok((Route::ReadJob, ""))),
            ("POST", "/v1/jobs/01J/cancel", Ok((Route::CancelJob, "01J"))),
            ("GET", "/v1/jobs/01J/cancel", Err(NoRoute::Method)),
            ("PUT", "/v1/jobs", Err(NoRoute::Method)),
            ("GET", "/v1/presets/starters", Ok((Route::Starters, ""))),
            ("DELETE", "/v1/presets/starters", Err(NoRoute::Method)),
            ("GET", "/v1/jobs/01J/cancel/2", Err(NoRoute::Path)),
            ("GET", "/v1", Err(NoRoute::Path)),
            ("GET", "", Err(NoRoute::Path)),
        ];
        for (method, path, expected) in table {
            assert_eq!(find(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_path_knows_its_methods() {
        assert_eq!(allowed("/v1/settings"), "GET, POST, PUT");
        assert_eq!(allowed("/files/outputs/a.mp4"), "GET, HEAD, PUT");
        assert_eq!(allowed("/v1/nothing"), "");
    }

    #[test]
    fn only_the_api_itself_is_answered_under_api() {
        let table = [
            ("/api/v1/jobs", "/v1/jobs"),
            ("/v1/jobs", "/v1/jobs"),
            ("/api/healthz", "/api/healthz"),
            ("/api/api/v1/jobs", "/api/api/v1/jobs"),
            ("/apiv1/jobs", "/apiv1/jobs"),
        ];
        for (path, expected) in table {
            assert_eq!(canonical(path), expected);
        }
    }

    #[test]
    fn no_method_and_path_stand_in_the_table_twice() {
        let mut seen = std::collections::HashSet::new();
        for (method, pattern, _) in ROUTES {
            assert!(seen.insert((method, pattern)), "{method} {pattern}");
        }
    }
}
