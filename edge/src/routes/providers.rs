//! `/v1/settings/storage-providers`: buckets of the caller's own.

use xora_shared::{
    answer::{BucketTrouble, ProviderList, ProviderTest},
    id::Place,
    provider::{Provider, ProviderRequest},
    sign::hex,
};

use super::{Ask, Reply};
use crate::{
    account,
    auth::Scope,
    config,
    error::ApiError,
    s3::{Opened, Trouble},
    shard,
};

/// `POST /v1/settings/storage-providers`
pub async fn create(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    let env = ask.site.env.clone();
    let request = ProviderRequest::parse(&ask.json().await?, config::policy(&env))?;
    let id = config::new_id(Place::FIRST)?;
    let secret = config::credentials_secret(&env)?;
    let provider = Provider::seal(request, id, &secret, config::random()?, config::now());
    account::create_provider(&env, &provider).await?;
    Reply::of(201, &provider.view())
}

/// `GET /v1/settings/storage-providers`
pub async fn list(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    let providers = account::providers(&ask.site.env).await?;
    Reply::of(200, &ProviderList { storage_providers: providers.into_iter().map(Provider::view).collect() })
}

/// `GET /v1/settings/storage-providers/:id`
pub async fn read(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    Reply::of(200, &find(ask).await?.view())
}

/// `DELETE /v1/settings/storage-providers/:id`: the shards forget what opens the bucket first, so that asking again after
/// a failure finds the rest.
pub async fn delete(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    let (env, id) = (&ask.site.env, find(ask).await?.id);
    shard::forget_provider(env, id).await?;
    account::delete_provider(env, id).await?;
    Ok(Reply::no_content())
}

/// `POST /v1/settings/storage-providers/:id/test`: writes, reads and deletes a small object, and says how it went.
pub async fn test(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    let opened = Opened::of(&ask.site.env, &find(ask).await?)?;
    let text = hex(&config::random::<16>()?);
    let tried = try_out(&opened, &text).await;
    Reply::of(200, &ProviderTest { ok: tried.is_ok(), error: tried.err().map(|(step, trouble)| why(step, &trouble)) })
}

async fn try_out(opened: &Opened, text: &str) -> Result<(), (&'static str, Trouble)> {
    opened.judge().map_err(|trouble| ("write", trouble))?;
    let key = format!("xora-test-{text}");
    opened.put(&key, text).await.map_err(|trouble| ("write", trouble))?;
    let read = opened.get(&key).await;
    // Whatever the reading came to, nothing is left behind.
    let deleted = opened.delete(&key).await;
    match read {
        Ok(found) if found == text => {}
        Ok(_) => return Err(("read", Trouble::Differs)),
        Err(trouble) => return Err(("read", trouble)),
    }
    deleted.map_err(|trouble| ("delete", trouble))
}

fn why(step: &'static str, trouble: &Trouble) -> BucketTrouble {
    let (code, message) = match trouble {
        Trouble::Refused(said) => {
            let hint = "check the bucket's name, the region, and what the key may do";
            ("refused", format!("to {step} a small object, the bucket answered {said}; {hint}"))
        }
        Trouble::Unavailable(Some(said)) => {
            ("unavailable", format!("to {step} a small object, the bucket answered {said}; try again later"))
        }
        Trouble::Unavailable(None) => {
            ("unavailable", format!("to {step} a small object: no answer; check the endpoint"))
        }
        Trouble::Differs => ("differs", "what was read is not what was written; another service answers there".into()),
        Trouble::Policy => ("refused_by_policy", "the endpoint is not allowed here; add another provider".into()),
    };
    BucketTrouble { code, step, message }
}

async fn find(ask: &Ask) -> Result<Provider, ApiError> {
    let id = ask.id("storage provider")?;
    account::provider(&ask.site.env, id).await?.ok_or_else(|| ApiError::not_found("storage provider"))
}
