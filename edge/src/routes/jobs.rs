//! `/v1/jobs` and `/v1/deliveries`.

use serde_json::{Value, value::RawValue};
use worker::{Env, Headers, Response};
use xora_shared::{
    answer::{Accepted, DeliveryState, JobList, Redelivered},
    id::{Id, Place},
    job::JobState,
    preset,
    provider::Provider,
    request::{JobRequest, ListQuery, digest},
    sign::sha256_hex,
};

use super::{Ask, Reply, presets};
use crate::{
    account,
    auth::Scope,
    config,
    error::ApiError,
    shard::{self, Made, NewJob, Once, Op, UseReceived, Watch},
};

/// `POST /v1/jobs`. An idempotency key is asked for first: whatever was deleted or changed since the first request, its job
/// is the answer.
pub async fn create(ask: &mut Ask) -> Result<Created, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (site, token_id) = (ask.site.clone(), ask.caller.token_id.clone());
    let key = ask.request.headers().get("Idempotency-Key")?;
    let body = ask.json().await?;
    let once = key.map(|key| once(&token_id, &key, &body)).transpose()?;
    let map = shard::shard_map(&site.env).await?;
    // By chance, or where an earlier request with the same key went.
    let spread = match &once {
        Some(once) => u16::from_str_radix(&once.key[..4], 16).unwrap_or(0),
        None => u16::from_le_bytes(config::random()?),
    };
    let place = map.place(spread, config::now());
    if let Some(once) = &once {
        let before = map.places_before(spread, config::now());
        if let Some(made) = made_before(&site.env, once, [place].into_iter().chain(before)).await? {
            return accepted(made);
        }
    }
    let policy = config::policy(&site.env);
    let mut request = match preset::named(&body) {
        Some(id) => JobRequest::parse(&preset::merge(&presets::config(&site.env, id).await?, &body), policy)?,
        None => JobRequest::parse(&body, policy)?,
    };
    let provider = destination(&site.env, request.storage_provider_id).await?;
    request.storage_provider_id = provider.as_ref().map(|provider| provider.id);
    let id = config::new_id(place)?;
    for upload in request.uploads() {
        let wanted = UseReceived { upload, job: id };
        let shard = shard::of(&site.env, upload, "upload").await?;
        shard::ask::<()>(&site.env, shard, Op::UseReceived, &wanted).await?;
    }
    if request.has_open_headers() {
        request = request.seal(&config::credentials_secret(&site.env)?, config::random, id)?;
    }
    let job = NewJob { id, request, token_id, origin: site.origin, once, provider };
    accepted(shard::ask(&site.env, place.shard(), Op::Create, &job).await?)
}

/// The job that an idempotency key made before, in any of the places where it may have gone within a day.
async fn made_before(env: &Env, once: &Once, places: impl Iterator<Item = Place>) -> Result<Option<Made>, ApiError> {
    let mut asked = Vec::new();
    for shard in places.map(Place::shard) {
        // Epochs share their shards.
        if asked.contains(&shard) {
            continue;
        }
        if let Some(made) = shard::ask::<Option<Made>>(env, shard, Op::Repeat, once).await? {
            return Ok(Some(made));
        }
        asked.push(shard);
    }
    Ok(None)
}

/// `GET /v1/jobs`: every shard lists its newest, and the newest of these are the answer.
pub async fn list(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let env = &ask.site.env;
    let url = ask.request.url()?;
    let query = ListQuery::parse(url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())))?;
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    // One more, to know whether there is more.
    let wanted = ListQuery { limit: query.limit + 1, ..query };
    let shards = shard::shard_map(env).await?.reach();
    let mut jobs = Vec::<(Id, Box<RawValue>)>::new();
    for (_, listed) in shard::ask_all::<Vec<_>>(env, shards, Op::List, &wanted).await? {
        jobs.extend(listed?);
    }
    jobs.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = jobs.last().filter(|_| more).map(|(id, _)| *id);
    // Passed on as their shards wrote them.
    let jobs: Vec<Box<RawValue>> = jobs.into_iter().map(|(_, job)| job).collect();
    Reply::of(200, &JobList { jobs, next_cursor: next })
}

/// `GET /v1/jobs/:id/events`
pub async fn events(ask: &Ask) -> Result<Response, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (job, shard) = ask.row("job").await?;
    let seen = ask.request.headers().get("Last-Event-ID")?.and_then(|text| text.trim().parse().ok());
    let watch = Watch { job, seen, key: ask.caller.hash.clone() };
    let response = shard::open(&ask.site.env, shard, Op::Events, &watch).await?;
    let headers = Headers::new();
    if response.status_code() == 200 {
        headers.set("Content-Type", "text/event-stream")?;
    }
    headers.set("Cache-Control", "no-cache, no-transform")?;
    Ok(response.with_headers(headers))
}

/// `DELETE /v1/jobs/:id`
pub async fn delete(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (id, shard) = ask.row("job").await?;
    shard::ask::<()>(&ask.site.env, shard, Op::Delete, &id).await?;
    Ok(Reply::no_content())
}

/// `POST /v1/jobs/:id/retry`
pub async fn retry(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (id, shard) = ask.row("job").await?;
    shard::ask::<()>(&ask.site.env, shard, Op::Retry, &id).await?;
    Reply::of(202, &Accepted { job_id: id, state: JobState::Queued })
}

/// `POST /v1/deliveries/:id/redeliver`
pub async fn redeliver(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (id, shard) = ask.row("delivery").await?;
    shard::ask::<()>(&ask.site.env, shard, Op::Redeliver, &id).await?;
    Reply::of(202, &Redelivered { id, state: DeliveryState::Pending })
}

/// `GET /v1/jobs/:id`, `POST /v1/jobs/:id/cancel`, `GET /v1/jobs/:id/deliveries`: the job's shard answers.
pub async fn about(ask: &Ask, op: Op) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let (id, shard) = ask.row("job").await?;
    shard::forward(&ask.site, shard, op, format!("\"{id}\"")).await
}

fn once(token_id: &str, key: &str, body: &Value) -> Result<Once, ApiError> {
    if key.is_empty() || key.len() > 255 {
        return Err(ApiError::invalid("Idempotency-Key: must be 1 to 255 characters"));
    }
    Ok(Once { key: sha256_hex(format!("{token_id}\n{key}").as_bytes()), body: digest(body) })
}

/// The bucket that a job names for its output. A job that names none goes where its shard's settings say.
async fn destination(env: &Env, named: Option<Id>) -> Result<Option<Provider>, ApiError> {
    match named {
        Some(id) => account::destination(env, id).await.map(Some),
        None => Ok(None),
    }
}

/// The answer to a request for a job.
pub struct Created {
    /// The answer.
    pub reply: Reply,
    /// Whether an earlier request with the same idempotency key made the job.
    pub replayed: bool,
}

fn accepted(Made { id, state, replayed }: Made) -> Result<Created, ApiError> {
    Ok(Created { reply: Reply::of(202, &Accepted { job_id: id, state })?, replayed })
}
