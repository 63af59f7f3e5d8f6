//! HTTP: which path does what.

mod ask;
mod cors;
pub mod files;
mod jobs;
mod nodes;
mod presets;
mod providers;
mod settings;
mod tokens;
mod uploads;

use worker::{Env, Request, Response, Result, Url};
use xora_shared::{
    answer::Health,
    protocol,
    route::{self, NoRoute, Route},
};

pub use ask::{Ask, Reply, Site};
use cors::Cors;
use jobs::Created;

use crate::{
    auth::{self, Caller, Scope},
    config,
    error::{ApiError, Code},
    shard,
};

/// Answers a request. Whatever goes wrong becomes an error body.
pub async fn answer(req: Request, env: Env) -> Result<Response> {
    let cors = Cors::of(&env, &req);
    let response = if cors::is_preflight(&req) { cors.preflight()? } else { dispatch(req, env).await? };
    cors.open(response)
}

/// An answer that is ready, or one that is still being made.
enum Answer {
    Json(Reply),
    /// One that was given before, to a request with the same idempotency key.
    Replayed(Reply),
    Stream(Response),
}

async fn dispatch(req: Request, env: Env) -> Result<Response> {
    let request_id = request_id(&req);
    let url = req.url()?;
    let path = route::canonical(url.path());
    #[cfg(debug_assertions)]
    if let Some(response) = crate::faults::on_demand(path) {
        return response;
    }
    #[cfg(debug_assertions)]
    if let Some(response) = crate::panics::on_demand(path, &env).await? {
        return Ok(response);
    }
    let site = Site { origin: config::public_url(&env).unwrap_or_else(|| url.origin().ascii_serialization()), env };
    // Bodies of files and sockets have a form of their own.
    let answered = if path.starts_with("/files/") {
        files::answer(req, &site.env, &url, &request_id).await
    } else if path == protocol::WAKE {
        wake_socket(req, &site, &url).await
    } else {
        match answer_with_key(req, site, path).await {
            Ok(Answer::Json(reply)) => Ok(reply.into_response(&request_id)?),
            Ok(Answer::Replayed(reply)) => {
                let response = reply.into_response(&request_id)?;
                response.headers().set("Idempotent-Replayed", "true")?;
                Ok(response)
            }
            Ok(Answer::Stream(response)) => {
                response.headers().set("X-Request-Id", &request_id)?;
                Ok(response)
            }
            Err(error) => Err(error),
        }
    };
    let response = answered.or_else(|error| error.reply().into_response(&request_id))?;
    if response.status_code() == Code::MethodNotAllowed.status() {
        response.headers().set("Allow", &route::allowed(path))?;
    }
    Ok(response)
}

async fn answer_with_key(request: Request, site: Site, path: &str) -> Result<Answer, ApiError> {
    if path == "/healthz" {
        find(&request, path)?;
        return Reply::of(200, &Health { ok: true }).map(Answer::Json);
    }
    // A stranger does not learn which paths there are.
    let caller = auth::caller(&site.env, request.headers()).await?;
    // What nodes say keeps leases alive, and there is no more of it than there is work.
    if !path.starts_with(protocol::PREFIX) {
        auth::admit(&site.env, &caller).await?;
    }
    let (route, id_text) = find(&request, path)?;
    let mut ask = Ask { site, caller, id_text, request };
    let reply = match route {
        Route::Health => Err(ApiError::not_found("path")),
        Route::CreateJob => {
            let Created { reply, replayed } = jobs::create(&mut ask).await?;
            return Ok(if replayed { Answer::Replayed(reply) } else { Answer::Json(reply) });
        }
        Route::ListJobs => jobs::list(&ask).await,
        Route::ReadJob => jobs::about(&ask, shard::Op::Read).await,
        Route::DeleteJob => jobs::delete(&ask).await,
        Route::JobEvents => return jobs::events(&ask).await.map(Answer::Stream),
        Route::CancelJob => jobs::about(&ask, shard::Op::Cancel).await,
        Route::RetryJob => jobs::retry(&ask).await,
        Route::Deliveries => jobs::about(&ask, shard::Op::Deliveries).await,
        Route::Redeliver => jobs::redeliver(&ask).await,
        Route::CreateUpload => uploads::create(&mut ask).await,
        Route::ReadUpload => uploads::read(&ask).await,
        Route::ReadSettings => settings::read(&ask).await,
        Route::MergeSettings => settings::merge(&mut ask).await,
        Route::TestWebhook => settings::test_webhook(&ask).await,
        Route::ReadSecret => settings::secret(&ask).await,
        Route::RotateSecret => settings::rotate_secret(&ask).await,
        Route::CreateProvider => providers::create(&mut ask).await,
        Route::ListProviders => providers::list(&ask).await,
        Route::ReadProvider => providers::read(&ask).await,
        Route::DeleteProvider => providers::delete(&ask).await,
        Route::TestProvider => providers::test(&ask).await,
        Route::Starters => presets::starters(&ask),
        Route::CreatePreset => presets::create(&mut ask).await,
        Route::ListPresets => presets::list(&ask).await,
        Route::ReadPreset => presets::read(&ask).await,
        Route::ReplacePreset => presets::replace(&mut ask).await,
        Route::DeletePreset => presets::delete(&ask).await,
        Route::CreateToken => tokens::create(&mut ask).await,
        Route::ListTokens => tokens::list(&ask).await,
        Route::RevokeToken => tokens::revoke(&ask).await,
        Route::ListNodes => nodes::list(&ask).await,
        Route::Lease => nodes::lease(&mut ask).await,
        Route::Heartbeat => nodes::heartbeat(&mut ask).await,
        Route::OutputBegin => nodes::about(&mut ask, shard::Op::OutputBegin).await,
        Route::OutputTargets => nodes::about(&mut ask, shard::Op::OutputTargets).await,
        Route::OutputFinish => nodes::about(&mut ask, shard::Op::OutputFinish).await,
        Route::InputBegin => nodes::about(&mut ask, shard::Op::InputBegin).await,
        Route::InputFinish => nodes::about(&mut ask, shard::Op::InputFinish).await,
        Route::Complete => nodes::about(&mut ask, shard::Op::Complete).await,
        Route::Fail => nodes::about(&mut ask, shard::Op::Fail).await,
        Route::Release => nodes::about(&mut ask, shard::Op::Release).await,
    };
    reply.map(Answer::Json)
}

/// Finds the route, and the id in its path. By the method's own name: the library takes every name that it does not know
/// for GET.
fn find(request: &Request, path: &str) -> Result<(Route, String), ApiError> {
    match route::find(&request.inner().method(), path) {
        Ok((route, id)) => Ok((route, id.to_owned())),
        Err(NoRoute::Path) => Err(ApiError::not_found("path")),
        Err(NoRoute::Method) => Err(ApiError::new(Code::MethodNotAllowed, "this path exists, but not for this method")),
    }
}

/// A node's wake-up socket to one shard.
async fn wake_socket(req: Request, site: &Site, url: &Url) -> Result<Response, ApiError> {
    let caller: Caller = auth::caller(&site.env, req.headers()).await?;
    caller.needs(Scope::Node)?;
    if req.headers().get("Upgrade")?.is_none_or(|value| !value.eq_ignore_ascii_case("websocket")) {
        return Err(ApiError::invalid("this is a WebSocket; send `Upgrade: websocket`"));
    }
    let shard = url.query_pairs().find(|(name, _)| name == "shard").and_then(|(_, value)| value.parse().ok());
    let shards = shard::shard_map(&site.env).await?.reach();
    let Some(shard) = shard.filter(|shard| *shard < shards) else {
        return Err(ApiError::invalid(format!("shard: must be 0 to {}", shards - 1)));
    };
    Ok(shard::stub(&site.env, shard)?.fetch_with_request(req).await?)
}

/// The platform's id of the request, or one of our own.
fn request_id(req: &Request) -> String {
    let ray = req.headers().get("cf-ray").ok().flatten();
    ray.unwrap_or_else(|| xora_shared::sign::hex(&config::random::<8>().unwrap_or_default()))
}
