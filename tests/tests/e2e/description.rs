//! The description of the API, as it is served.

use anyhow::Result;
use reqwest::Method;
use serde_json::Value;
use xora_tests::root;

use crate::edge;

#[tokio::test]
async fn the_description_is_served_to_anyone_as_it_is_committed() -> Result<()> {
    let client = edge().await?.client().with_key("");
    let committed: Value = serde_json::from_slice(&std::fs::read(root().join("edge/assets/v1/openapi.json"))?)?;
    for path in ["/v1/openapi.json", "/api/v1/openapi.json"] {
        let response = client.request(Method::GET, path).send().await?;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        assert_eq!(serde_json::from_slice::<Value>(&response.bytes().await?)?, committed, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn the_page_is_served_to_anyone_and_fetches_nothing_from_elsewhere() -> Result<()> {
    let client = edge().await?.client().with_key("");
    let response = client.request(Method::GET, "/docs").send().await?;
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str()?.starts_with("text/html"));
    assert!(response.headers()["content-security-policy"].to_str()?.starts_with("default-src 'none'"));
    let page = response.text().await?;
    for loads in ["<script", "src=", "@import", "url(", "<iframe"] {
        assert!(!page.contains(loads), "the page has `{loads}`");
    }
    assert!(page.contains("<h3>Create a job</h3>"));
    Ok(())
}

#[tokio::test]
async fn what_is_no_file_still_reaches_the_api() -> Result<()> {
    let client = edge().await?.client();
    let unknown = client.with_key("").get("/v1/openapi.yaml").await?;
    assert_eq!((unknown.status, unknown.code()), (401, "UNAUTHORIZED"));
    for method in ["PATCH", "QUERY"] {
        let refused = client.request(Method::from_bytes(method.as_bytes())?, "/v1/settings").send().await?;
        assert_eq!(refused.status(), 405, "{method}");
        assert_eq!(refused.headers()["allow"], "GET, POST, PUT");
    }
    Ok(())
}
