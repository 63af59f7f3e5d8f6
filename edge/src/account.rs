//! The Durable Object `Account`: the record of API keys and signing secrets, and the one writer of settings.
//!
//! Settings live in KV, which takes one write a second per key and may lag; this object serialises their writes, keeps
//! what was written last, and writes it through.

mod presets;
mod providers;

use std::cell::{Cell, RefCell};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, State, console_error, durable_object};
use xora_shared::{json, settings::Settings, time::UnixMs, token::Token, webhook::Secrets};

pub use presets::{create_preset, delete_preset, preset, presets, replace_preset};
pub use providers::{create_provider, delete_provider, destination, provider, providers};

use crate::{
    auth::Caller,
    config,
    docs::docs,
    error::ApiError,
    routes::Reply,
    shard::rpc::{self, Asked},
};

/// When settings are written to KV once more, in milliseconds after they were merged: KV takes one write a second.
const WRITE_AGAIN_MS: i64 = 2_000;

/// Name of the settings, here and in KV.
const SETTINGS: &str = "settings";
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

/// Merges a request body into the settings.
pub async fn merge_settings(env: &Env, body: Value) -> Result<Settings, ApiError> {
    let merged = ask(env, "merge-settings", &body).await?;
    keep(config::now(), &merged);
    Ok(merged)
}

/// The settings as KV has them: they may be up to a minute old.
pub async fn settings_from_kv(env: &Env) -> Result<Settings, ApiError> {
    let text = env.kv("SETTINGS")?.get(SETTINGS).text().await?;
    Ok(text.map(|text| json::from_str(&text)).transpose()?.unwrap_or_default())
}

/// Whether outputs may go to a bucket that the settings name. As KV has it, and an isolate keeps it for a while; whoever
/// changes it here finds it changed at once.
pub async fn names_a_bucket(env: &Env) -> Result<bool, ApiError> {
    const KEPT_MS: i64 = 5_000;
    let now = config::now();
    if let Some((_, names)) = NAMES_A_BUCKET.get().filter(|(at, _)| now.since(*at) < KEPT_MS) {
        return Ok(names);
    }
    let settings = settings_from_kv(env).await?;
    Ok(keep(now, &settings))
}

thread_local! {
    /// When the settings were asked for, and whether they named a bucket.
    static NAMES_A_BUCKET: Cell<Option<(UnixMs, bool)>> = const { Cell::new(None) };
}

/// Keeps what settings say that were asked for at a time, unless something newer is known.
fn keep(at: UnixMs, settings: &Settings) -> bool {
    let names = settings.default_storage_provider_id.is_some();
    if NAMES_A_BUCKET.get().is_none_or(|(before, _)| before <= at) {
        NAMES_A_BUCKET.set(Some((at, names)));
    }
    names
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
}

impl Account {
    async fn perform(&self, asked: Asked) -> Result<Reply, ApiError> {
        // Counted by tests: one object answers for all keys.
        #[cfg(debug_assertions)]
        worker::console_log!("account is asked: {}", asked.op);
        match asked.op.as_str() {
            "verify" => rpc::reply(&self.verify(&asked.body::<String>()?)?),
            "settings" => rpc::reply(&self.settings()?),
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

    async fn keep_settings(&self, settings: &Settings) -> Result<(), ApiError> {
        self.put_document(SETTINGS, &serde_json::to_string(settings)?)?;
        // Armed before the first try: a crash, a refused write and two merges that overtake each other are all made good.
        self.state.storage().set_alarm(WRITE_AGAIN_MS).await?;
        if let Err(error) = self.write_through().await {
            console_error!("settings: written to KV a little later: {error}");
        }
        Ok(())
    }

    /// Brings KV up to what stands here.
    async fn write_through(&self) -> Result<(), ApiError> {
        let doc = serde_json::to_string(&self.settings()?)?;
        Ok(self.env.kv("SETTINGS")?.put(SETTINGS, doc)?.execute().await?)
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
        let account = Self { state, env };
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
        if self.write_through().await.is_err() {
            self.state.storage().set_alarm(WRITE_AGAIN_MS).await?;
        }
        Response::empty()
    }
}
