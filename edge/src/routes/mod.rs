//! HTTP: which path does what. Bodies of files and sockets are answered before axum, which would copy them.

mod ask;
mod body;
pub mod files;
mod jobs;
mod nodes;
mod settings;
mod tokens;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::Uri,
    response::IntoResponse,
    routing::{delete, get, post},
};
use tower_service::Service;
use worker::{Env, HttpRequest, Request, Response, Result, Url};
use xora_shared::protocol;

pub use ask::{Ask, Reply, Site};

use crate::{
    auth::{self, Caller, Scope},
    config,
    error::{ApiError, Code},
    shard,
};

/// Answers a request. Never fails: whatever goes wrong becomes an error body.
pub async fn answer(req: Request, env: Env) -> Result<Response> {
    let request_id = request_id(&req);
    let result = match dispatch(req, env).await {
        Ok(response) => Ok(response),
        Err(error) => Response::try_from(error.into_response()),
    };
    tag(result?, &request_id).await
}

async fn dispatch(req: Request, env: Env) -> Result<Response, ApiError> {
    let url = req.url()?;
    let path = url.path();
    let path = path.strip_prefix("/api").filter(|rest| rest.starts_with("/v1/")).unwrap_or(path).to_owned();
    if path.starts_with("/files/") {
        return files::answer(req, &env, &url).await;
    }
    let site = Site { origin: config::public_url(&env).unwrap_or_else(|| url.origin().ascii_serialization()), env };
    let caller = if path.starts_with("/v1/") { Some(auth::caller(&site.env, req.headers()).await?) } else { None };
    if path == protocol::WAKE {
        return wake_socket(req, &site, caller.as_ref(), &url).await;
    }
    let mut http = HttpRequest::try_from(req)?;
    *http.uri_mut() = with_path(http.uri(), &path)?;
    http.extensions_mut().insert(site);
    if let Some(caller) = caller {
        http.extensions_mut().insert(caller);
    }
    let Ok(answered) = router().call(http).await;
    Ok(Response::try_from(answered)?)
}

fn router() -> Router {
    Router::new()
        .route("/healthz", get(async || Reply { status: 200, body: r#"{"ok":true}"#.to_owned() }))
        .route("/v1/jobs", post(jobs::create))
        .route("/v1/jobs/{id}", get(jobs::read))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/v1/jobs/{id}/deliveries", get(jobs::deliveries))
        .route("/v1/deliveries/{id}/redeliver", post(jobs::redeliver))
        .route("/v1/settings", get(settings::read).post(settings::merge).put(settings::merge))
        .route("/v1/settings/webhook/test", post(settings::test_webhook))
        .route("/v1/settings/webhook/secret", get(settings::secret))
        .route("/v1/settings/webhook/secret/rotate", post(settings::rotate_secret))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route(protocol::LEASE, post(nodes::lease))
        .route(protocol::HEARTBEAT, post(nodes::heartbeat))
        .route(protocol::OUTPUT_BEGIN, post(nodes::begin_output))
        .route(protocol::OUTPUT_TARGETS, post(nodes::output_targets))
        .route(protocol::OUTPUT_FINISH, post(nodes::finish_output))
        .route(protocol::COMPLETE, post(nodes::complete))
        .route(protocol::FAIL, post(nodes::fail))
        .route(protocol::RELEASE, post(nodes::release))
        .fallback(async || ApiError::not_found("path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(Code::MethodNotAllowed, "this path exists, but not for this method")
        })
        .layer(DefaultBodyLimit::disable())
}

/// A node's wake-up socket to one shard.
async fn wake_socket(req: Request, site: &Site, caller: Option<&Caller>, url: &Url) -> Result<Response, ApiError> {
    caller.map_or(Ok(()), |caller| caller.needs(Scope::Node))?;
    if req.headers().get("Upgrade")?.is_none_or(|value| !value.eq_ignore_ascii_case("websocket")) {
        return Err(ApiError::new(Code::ValidationError, "this is a WebSocket; send `Upgrade: websocket`"));
    }
    let shard = url.query_pairs().find(|(name, _)| name == "shard").and_then(|(_, value)| value.parse().ok());
    let shards = shard::ShardMap::load(&site.env).await?.shards;
    let Some(shard) = shard.filter(|shard| *shard < shards) else {
        return Err(ApiError::new(Code::ValidationError, format!("shard: must be 0 to {}", shards - 1)));
    };
    Ok(shard::stub(&site.env, shard)?.fetch_with_request(req).await?)
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri, ApiError> {
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    text.parse().map_err(|_| ApiError::not_found("path"))
}

/// The platform's id of the request, or one of our own.
fn request_id(req: &Request) -> String {
    let ray = req.headers().get("cf-ray").ok().flatten();
    ray.unwrap_or_else(|| {
        config::random::<8>().map(|bytes| format!("{:016x}", u64::from_le_bytes(bytes))).unwrap_or_default()
    })
}

/// Names the request in its answer, and in the body of an error.
async fn tag(mut response: Response, request_id: &str) -> Result<Response> {
    let is_error_body = response.status_code() >= 400
        && response.headers().get("Content-Type")?.is_some_and(|value| value.starts_with("application/json"));
    if is_error_body {
        let mut body: serde_json::Value = response.json().await?;
        body["error"]["requestId"] = request_id.into();
        let headers = response.headers().clone();
        headers.delete("Content-Length")?;
        response = Response::ok(body.to_string())?.with_status(response.status_code()).with_headers(headers);
    }
    if response.status_code() != 101 {
        response.headers_mut().set("X-Request-Id", request_id)?;
    }
    Ok(response)
}
