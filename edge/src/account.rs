//! The Durable Object `Account`: the record of API keys, signing secrets and settings.
//!
//! Every shard has a copy of the settings, because nothing that is begun may need another object, or KV, to end. A change
//! is pushed to all of them before it is answered. Whoever missed it gets it from this object's alarm, or from the cron.
//! KV has a copy too, for readers outside.

mod presets;
mod providers;

use std::{
    cell::RefCell,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use worker::{Delay, DurableObject, Env, Request, Response, Result, SqlStorage, State, console_error, durable_object};
use xora_shared::{json, settings::Settings, shards::ShardMap, time::UnixMs, token::Token, webhook::Secrets};

pub use presets::{create_preset, delete_preset, preset, presets, replace_preset};
pub use providers::{create_provider, delete_provider, destination, provider, providers};

use crate::{
    auth::Caller,
    config,
    docs::docs,
    error::ApiError,
    kv,
    routes::Reply,
    shard::{
        self, Op,
        rpc::{self, Asked},
    },
};

/// When settings are published after a change, in milliseconds: KV takes one write a second.
const PUBLISH_MS: i64 = 1_000;

/// Longest wait before they are published again after that failed, in milliseconds.
const MAX_PUBLISH_MS: i64 = 60_000;

/// How long a change of the settings waits for the shards. One that has not answered by then is told by the alarm.
const PUSH: Duration = Duration::from_secs(4);

/// Name of the settings, here and in KV.
const SETTINGS: &str = "settings";
/// Name of their version, here only.
const VERSION: &str = "settings-version";
/// Name of the last good shard map, here; its text, as JSON.
const SHARD_MAP: &str = "shard-map";
/// Name of the secrets that sign webhooks, here only.
const SECRETS: &str = "webhook-secrets";

/// How far behind `last_used_at` may be, in milliseconds: a key in use costs a row in this time.
const USED_MS: i64 = 10 * 60 * 1000;

/// Who holds the key with this hash, if anyone does.
pub async fn verify(env: &Env, hash: &str) -> Result<Option<Caller>, ApiError> {
    ask(env, "verify", &hash).await
}

/// The settings as last written.
pub async fn settings(env: &Env) -> Result<Settings, ApiError> {
    ask(env, "settings", &()).await
}

/// The same with their version, as the shards keep them.
pub async fn versioned_settings(env: &Env) -> Result<VersionedSettings, ApiError> {
    ask(env, "versioned-settings", &()).await
}

/// Settings as one change left them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VersionedSettings {
    /// Grows by one with each change; 0 before the first.
    pub version: u64,
    /// The settings.
    pub settings: Settings,
}

/// Merges a request body into the settings.
pub async fn merge_settings(env: &Env, body: Value) -> Result<Settings, ApiError> {
    ask(env, "merge-settings", &body).await
}

/// The text of the last good shard map that [`keep_shard_map`] was given.
pub async fn shard_map(env: &Env) -> Result<Option<String>, ApiError> {
    ask(env, "shard-map", &()).await
}

/// Keeps the text of a shard map that can be used.
pub async fn keep_shard_map(env: &Env, text: &str) -> Result<(), ApiError> {
    ask(env, "keep-shard-map", &text).await
}

thread_local! {
    /// When this isolate asked for the secrets that sign webhooks, and what it heard.
    static HEARD: RefCell<Option<(UnixMs, Secrets)>> = const { RefCell::new(None) };
}

/// The secrets that sign webhooks now. The first is made when it is first asked for.
pub async fn secrets(env: &Env) -> Result<Secrets, ApiError> {
    ask_for_secrets(env, "secrets").await
}

/// A new signing secret; the one before signs beside it for a day.
pub async fn rotate_secret(env: &Env) -> Result<Secrets, ApiError> {
    ask_for_secrets(env, "rotate-secret").await
}

async fn ask_for_secrets(env: &Env, op: &str) -> Result<Secrets, ApiError> {
    let asked = config::now();
    let secrets: Secrets = ask(env, op, &()).await?;
    HEARD.with_borrow_mut(|heard| {
        // An answer from before a rotation may come after it.
        if heard.as_ref().is_none_or(|(at, _)| *at <= asked) {
            *heard = Some((asked, secrets.clone()));
        }
    });
    Ok(secrets)
}

/// The secrets that sign webhooks, as this isolate heard them in the last minute: for so long after a rotation it may sign
/// with the secret before alone. While `Account` does not answer, what was heard last goes on signing.
pub async fn secrets_for_signing(env: &Env) -> Result<Secrets, ApiError> {
    const KEPT_MS: i64 = 60_000;
    let now = config::now();
    let Some((at, heard)) = HEARD.with_borrow(Option::clone) else { return secrets(env).await };
    if now.since(at) < KEPT_MS {
        return Ok(heard);
    }
    secrets(env).await.or_else(|error| {
        console_error!("webhooks are signed with the secret heard before: {error}");
        Ok(heard)
    })
}

/// Keeps a new key's hash.
pub async fn create_token(env: &Env, token: &Token, hash: &str) -> Result<(), ApiError> {
    ask(env, "create-token", &(token, hash)).await
}

/// All keys, newest first.
pub async fn tokens(env: &Env) -> Result<Vec<Token>, ApiError> {
    ask(env, "tokens", &()).await
}

/// Forgets a key. Gives the hash that it was kept under, if there was one.
pub async fn revoke_token(env: &Env, id: &str) -> Result<Option<String>, ApiError> {
    ask(env, "revoke-token", &id).await
}

async fn ask<T: DeserializeOwned>(env: &Env, op: &str, body: &impl Serialize) -> Result<T, ApiError> {
    let answer = ask_for_text(env, op, serde_json::to_string(body)?).await?;
    Ok(json::from_str(&answer)?)
}

async fn ask_for_text(env: &Env, op: &str, body: String) -> Result<String, ApiError> {
    let stub = env.durable_object("ACCOUNT")?.get_by_name("account")?;
    rpc::ask(&stub, op, None, body).await
}

/// See the module.
#[durable_object(alarm)]
pub struct Account {
    state: State,
    env: Env,
    /// How often publishing the settings has failed since it last succeeded.
    failed: AtomicU32,
}

impl Account {
    async fn perform(&self, asked: Asked) -> Result<Reply, ApiError> {
        // Counted by tests: one object answers for all keys.
        #[cfg(debug_assertions)]
        worker::console_log!("account is asked: {}", asked.op);
        match asked.op.as_str() {
            "verify" => rpc::reply(&self.verify(&asked.body::<String>()?)?),
            "settings" => rpc::reply(&self.settings()?),
            "versioned-settings" => rpc::reply(&self.versioned_settings()?),
            "shard-map" => rpc::reply(&self.document::<String>(SHARD_MAP)?),
            "keep-shard-map" => rpc::reply(&self.keep_shard_map(&asked.body::<String>()?)?),
            "merge-settings" => rpc::reply(&self.merge_settings(&asked.body()?).await?),
            "secrets" => rpc::reply(&self.secrets()?),
            "rotate-secret" => rpc::reply(&self.rotate_secret()?),
            "create-token" => {
                let (token, hash) = asked.body::<(Token, String)>()?;
                rpc::reply(&self.create_token(&token, &hash)?)
            }
            "tokens" => rpc::reply(&self.tokens()?),
            "revoke-token" => rpc::reply(&self.revoke_token(&asked.body::<String>()?)?),
            "create-preset" => rpc::reply(&self.create_preset(&asked.body()?)?),
            "presets" => rpc::reply(&self.presets()?),
            "preset" => rpc::reply(&self.preset(&asked.body::<String>()?)?),
            "replace-preset" => rpc::reply(&self.replace_preset(asked.body()?)?),
            "delete-preset" => rpc::reply(&self.delete_preset(&asked.body::<String>()?)?),
            "create-provider" => rpc::reply(&self.create_provider(&asked.body()?)?),
            "providers" => rpc::reply(&self.providers()?),
            "provider" => rpc::reply(&self.provider(asked.body()?)?),
            "delete-provider" => rpc::reply(&self.delete_provider(asked.body()?).await?),
            "destination" => rpc::reply(&self.destination(asked.body()?)?),
            _ => Err(ApiError::not_found("operation")),
        }
    }

    fn verify(&self, hash: &str) -> Result<Option<Caller>, ApiError> {
        let sql = "SELECT doc FROM tokens WHERE hash = ?";
        let found = docs::<Token>(&self.sql(), sql, vec![hash.into()])?.pop();
        let Some(mut token) = found else { return Ok(None) };
        let now = config::now();
        // ISO 8601 sorts by time.
        if token.last_used_at.as_ref().is_none_or(|used| *used < now.plus(-USED_MS).to_iso()) {
            token.last_used_at = Some(now.to_iso());
            let values = vec![serde_json::to_string(&token)?.into(), hash.into()];
            self.sql().exec("UPDATE tokens SET doc = ? WHERE hash = ?", values)?;
        }
        Ok(Some(Caller { token_id: token.id, scopes: token.scopes, hash: None }))
    }

    fn settings(&self) -> Result<Settings, ApiError> {
        Ok(self.document(SETTINGS)?.unwrap_or_default())
    }

    async fn merge_settings(&self, body: &Value) -> Result<Settings, ApiError> {
        let known = |id| matches!(self.provider(id), Ok(Some(_)));
        let merged = self.settings()?.merge(body, config::policy(&self.env), known, config::now())?;
        self.keep_settings(&merged).await?;
        Ok(merged)
    }

    fn versioned_settings(&self) -> Result<VersionedSettings, ApiError> {
        let version = self.document(VERSION)?.unwrap_or_default();
        Ok(VersionedSettings { version, settings: self.settings()? })
    }

    async fn keep_settings(&self, settings: &Settings) -> Result<(), ApiError> {
        let version = self.document::<u64>(VERSION)?.unwrap_or_default() + 1;
        self.put_document(VERSION, &version.to_string())?;
        self.put_document(SETTINGS, &serde_json::to_string(settings)?)?;
        // Armed in the same turn: a crash, a shard that does not answer and a refused write to KV are all made good.
        self.state.storage().set_alarm(PUBLISH_MS).await?;
        if let Either::Left((Err(error), _)) = select(pin!(self.push()), pin!(Delay::from(PUSH))).await {
            console_error!("settings: the shards are told a little later: {error}");
        }
        Ok(())
    }

    /// Gives the settings to every shard. Whether all have taken them.
    async fn push(&self) -> Result<bool, ApiError> {
        let shards = self.shards().await?;
        shard::tell_shards(&self.env, shards, Op::Settings, &self.versioned_settings()?).await
    }

    /// Gives the settings to the shards and to KV. Whether all have taken them.
    async fn publish(&self) -> Result<bool, ApiError> {
        let all = self.push().await?;
        kv::put(&self.env, SETTINGS, serde_json::to_string(&self.settings()?)?).await?;
        Ok(all)
    }

    /// How many shards there may be rows in. An object does not ask itself by message, so the last good map is read here.
    async fn shards(&self) -> Result<u16, ApiError> {
        let kept = self.document::<String>(SHARD_MAP)?.and_then(|text| ShardMap::parse(&text).ok());
        let kept = kept.map_or(1, |map| map.reach());
        Ok(shard::reach_by_kv(&self.env).await.map_or(kept, |reach| reach.max(kept)))
    }

    fn keep_shard_map(&self, text: &str) -> Result<(), ApiError> {
        let doc = serde_json::to_string(text)?;
        let same = self.document::<String>(SHARD_MAP)?.is_some_and(|kept| kept == text);
        if same || ShardMap::parse(text).is_err() { Ok(()) } else { self.put_document(SHARD_MAP, &doc) }
    }

    fn secrets(&self) -> Result<Secrets, ApiError> {
        if let Some(secrets) = self.document::<Secrets>(SECRETS)? {
            return Ok(secrets.at(config::now()));
        }
        self.keep_secrets(Secrets::first(config::random()?))
    }

    fn rotate_secret(&self) -> Result<Secrets, ApiError> {
        self.keep_secrets(self.secrets()?.rotate(config::random()?, config::now()))
    }

    fn keep_secrets(&self, secrets: Secrets) -> Result<Secrets, ApiError> {
        self.put_document(SECRETS, &serde_json::to_string(&secrets)?)?;
        Ok(secrets)
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let sql = "SELECT doc FROM documents WHERE name = ?";
        Ok(docs(&self.sql(), sql, vec![name.into()])?.pop())
    }

    fn put_document(&self, name: &str, doc: &str) -> Result<(), ApiError> {
        let sql = "INSERT OR REPLACE INTO documents (name, doc) VALUES (?, ?)";
        self.sql().exec(sql, vec![name.into(), doc.into()])?;
        Ok(())
    }

    fn create_token(&self, token: &Token, hash: &str) -> Result<(), ApiError> {
        let doc = serde_json::to_string(token)?;
        let values = vec![token.id.as_str().into(), hash.into(), doc.into()];
        self.sql().exec("INSERT INTO tokens (id, hash, doc) VALUES (?, ?, ?)", values)?;
        Ok(())
    }

    fn tokens(&self) -> Result<Vec<Token>, ApiError> {
        docs(&self.sql(), "SELECT doc FROM tokens ORDER BY id DESC", vec![])
    }

    fn revoke_token(&self, id: &str) -> Result<Option<String>, ApiError> {
        // As JSON, which is how documents are read.
        let sql = "DELETE FROM tokens WHERE id = ? RETURNING json_quote(hash) AS doc";
        Ok(docs(&self.sql(), sql, vec![id.into()])?.pop())
    }

    fn sql(&self) -> SqlStorage {
        self.state.storage().sql()
    }
}

impl DurableObject for Account {
    fn new(state: State, env: Env) -> Self {
        let account = Self { state, env, failed: AtomicU32::new(0) };
        let schema = [
            "CREATE TABLE IF NOT EXISTS tokens (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, doc TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, doc TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS presets (id TEXT PRIMARY KEY, doc TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS providers (id TEXT PRIMARY KEY, doc TEXT NOT NULL)",
        ];
        for statement in schema {
            if let Err(error) = account.sql().exec(statement, None) {
                console_error!("account schema: {error}");
            }
        }
        account
    }

    async fn fetch(&self, mut req: Request) -> Result<Response> {
        rpc::answer(match Asked::receive(&mut req).await {
            Ok(asked) => self.perform(asked).await,
            Err(error) => Err(error),
        })
    }

    async fn alarm(&self) -> Result<Response> {
        let published = self.publish().await.inspect_err(|error| console_error!("settings: published later: {error}"));
        if published.unwrap_or(false) {
            self.failed.store(0, Relaxed);
        } else {
            let failed = self.failed.fetch_add(1, Relaxed);
            self.state.storage().set_alarm((PUBLISH_MS << failed.min(6)).min(MAX_PUBLISH_MS)).await?;
        }
        Response::empty()
    }
}
