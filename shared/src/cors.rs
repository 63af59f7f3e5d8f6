//! Which web pages may call the API: the origins that the operator names, and no others.

/// Methods that a page may use.
pub const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
/// Request headers that a page may send.
pub const HEADERS: &str = "Authorization, Content-Type, X-API-KEY, Idempotency-Key, Last-Event-ID";
/// Answer headers that a page may read.
pub const EXPOSED: &str = "X-Request-Id, Retry-After, Idempotent-Replayed, ETag, Content-Range, Content-Disposition";

/// Whether `origin`, as a browser sends it, is one of those in `configured`, a list with commas. `*` is none.
pub fn allows(configured: &str, origin: &str) -> bool {
    let named = |name: &str| !name.is_empty() && name != "*" && name == origin;
    configured.split(',').map(|name| name.trim().trim_end_matches('/')).any(named)
}

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn only_named_origins_are_allowed() {
        let table = [
            ("", "https://app.example", false),
            ("https://app.example", "https://app.example", true),
            ("https://app.example/", "https://app.example", true),
            ("https://a.example, https://app.example", "https://app.example", true),
            ("https://app.example", "http://app.example", false),
            ("https://app.example", "https://app.example:8443", false),
            ("https://app.example", "https://evil-app.example", false),
            ("https://app.example", "https://app.example.evil.example", false),
            ("*", "https://app.example", false),
            ("*", "*", false),
            ("", "", false),
            ("https://app.example", "null", false),
        ];
        for (configured, origin, expected) in table {
            assert_eq!(allows(configured, origin), expected, "{configured} {origin}");
        }
    }
}
