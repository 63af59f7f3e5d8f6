//! The Durable Object `Account`: the record of API keys and signing secrets, and the one writer of settings.
//!
//! Settings live in KV, which takes one write a second per key and may lag; this object serialises their writes, keeps
//! what was written last, and writes it through.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use worker::{
    DurableObject, Env, Error, Request, Response, Result, Socket, SqlStorage, State, WebSocket,
    WebSocketIncomingMessage, durable_object,
};
use xora_shared::{settings::Settings, time::UnixMs, webhook::Secrets};

use crate::{
    auth::{Caller, Scope},
    config,
    error::ApiError,
    shard::rpc,
};

/// Name of the settings, here and in KV.
const SETTINGS: &str = "settings";
/// Name of the secrets that sign webhooks, here only.
const SECRETS: &str = "webhook-secrets";

/// What can be asked of the account.
#[derive(Debug, Serialize, Deserialize)]
enum Call {
    Verify { hash: String },
    Settings,
    MergeSettings { body: Value },
    Secrets,
    RotateSecret,
    CreateToken { token: Token, hash: String },
    Tokens,
    RevokeToken { id: String },
}

/// An API key as it is stored and listed: never the key itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Id, for lists and revocation.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made, ISO 8601.
    pub created_at: String,
}

/// Who holds the key with this hash, if anyone does.
pub async fn verify(env: &Env, hash: &str) -> Result<Option<Caller>, ApiError> {
    call(env, &Call::Verify { hash: hash.to_owned() }).await
}

/// The settings as last written.
pub async fn settings(env: &Env) -> Result<Settings, ApiError> {
    call(env, &Call::Settings).await
}

/// Merges a request body into the settings.
pub async fn merge_settings(env: &Env, body: Value) -> Result<Settings, ApiError> {
    call(env, &Call::MergeSettings { body }).await
}

/// The settings as KV has them: they may be up to a minute old.
pub async fn settings_from_kv(env: &Env) -> Result<Settings, ApiError> {
    let text = env.kv("SETTINGS")?.get(SETTINGS).text().await?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
}

/// The secrets that sign webhooks now. The first is made when it is first asked for.
pub async fn secrets(env: &Env) -> Result<Secrets, ApiError> {
    call(env, &Call::Secrets).await
}

/// A new signing secret; the one before signs beside it for a day.
pub async fn rotate_secret(env: &Env) -> Result<Secrets, ApiError> {
    call(env, &Call::RotateSecret).await
}

/// Keeps a new key's hash.
pub async fn create_token(env: &Env, token: Token, hash: String) -> Result<(), ApiError> {
    call(env, &Call::CreateToken { token, hash }).await
}

/// All keys, newest first.
pub async fn tokens(env: &Env) -> Result<Vec<Token>, ApiError> {
    call(env, &Call::Tokens).await
}

/// Forgets a key. Whether there was one.
pub async fn revoke_token(env: &Env, id: String) -> Result<bool, ApiError> {
    call(env, &Call::RevokeToken { id }).await
}

async fn call<T: DeserializeOwned>(env: &Env, call: &Call) -> Result<T, ApiError> {
    let stub = env.durable_object("ACCOUNT")?.get_by_name("account")?;
    rpc::send(&stub, call).await
}

/// See the module.
#[durable_object]
pub struct Account {
    state: State,
    env: Env,
}

impl Account {
    async fn perform(&self, call: Call) -> Result<Response, ApiError> {
        match call {
            Call::Verify { hash } => rpc::reply(&self.verify(&hash)?),
            Call::Settings => rpc::reply(&self.settings()?),
            Call::MergeSettings { body } => rpc::reply(&self.merge_settings(&body).await?),
            Call::Secrets => rpc::reply(&self.secrets()?),
            Call::RotateSecret => rpc::reply(&self.rotate_secret()?),
            Call::CreateToken { token, hash } => rpc::reply(&self.create_token(&token, &hash)?),
            Call::Tokens => rpc::reply(&self.tokens()?),
            Call::RevokeToken { id } => rpc::reply(&self.revoke_token(&id)?),
        }
    }

    fn verify(&self, hash: &str) -> Result<Option<Caller>, ApiError> {
        let sql = "SELECT doc FROM tokens WHERE hash = ?";
        let found = self.sql().exec(sql, vec![hash.into()])?.to_array::<Doc>()?.pop();
        let token: Option<Token> = found.map(|row| serde_json::from_str(&row.doc)).transpose()?;
        Ok(token.map(|token| Caller { token_id: token.id, scopes: token.scopes }))
    }

    fn settings(&self) -> Result<Settings, ApiError> {
        Ok(self.document(SETTINGS)?.unwrap_or_default())
    }

    async fn merge_settings(&self, body: &Value) -> Result<Settings, ApiError> {
        let merged = self.settings()?.merge(body, config::policy(&self.env), config::now())?;
        let doc = serde_json::to_string(&merged)?;
        self.put_document(SETTINGS, &doc)?;
        self.env.kv("SETTINGS")?.put(SETTINGS, doc)?.execute().await?;
        Ok(merged)
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
        let found = self.sql().exec(sql, vec![name.into()])?.to_array::<Doc>()?.pop();
        Ok(found.map(|row| serde_json::from_str(&row.doc)).transpose()?)
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
        let rows = self.sql().exec("SELECT doc FROM tokens ORDER BY id DESC", None)?.to_array::<Doc>()?;
        rows.iter().map(|row| Ok(serde_json::from_str(&row.doc)?)).collect()
    }

    fn revoke_token(&self, id: &str) -> Result<bool, ApiError> {
        Ok(self.sql().exec("DELETE FROM tokens WHERE id = ?", vec![id.into()])?.rows_written() > 0)
    }

    fn sql(&self) -> SqlStorage {
        self.state.storage().sql()
    }
}

#[derive(Deserialize)]
struct Doc {
    doc: String,
}

/// Makes a token of what a caller asked for.
pub fn new_token(id: String, name: String, scopes: Vec<Scope>, now: UnixMs) -> Token {
    Token { id, name, scopes, created_at: now.to_iso() }
}

impl DurableObject for Account {
    fn new(state: State, env: Env) -> Self {
        let account = Self { state, env };
        let schema = [
            "CREATE TABLE IF NOT EXISTS tokens (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, doc TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, doc TEXT NOT NULL)",
        ];
        for statement in schema {
            if let Err(error) = account.sql().exec(statement, None) {
                worker::console_error!("account schema: {error:?}");
            }
        }
        account
    }

    async fn fetch(&self, mut req: Request) -> Result<Response> {
        rpc::answer(match rpc::receive(&mut req).await {
            Ok(call) => self.perform(call).await,
            Err(error) => Err(error),
        })
    }

    async fn alarm(&self) -> Result<Response> {
        Response::empty()
    }

    async fn connect(&self, _socket: Socket) -> Result<()> {
        Ok(())
    }

    async fn websocket_message(&self, _ws: WebSocket, _message: WebSocketIncomingMessage) -> Result<()> {
        Ok(())
    }

    async fn websocket_close(&self, _ws: WebSocket, _code: usize, _reason: String, _was_clean: bool) -> Result<()> {
        Ok(())
    }

    async fn websocket_error(&self, _ws: WebSocket, _error: Error) -> Result<()> {
        Ok(())
    }
}
