//! Storage providers. What opens them is sealed before it comes here.

use worker::Env;
use xora_shared::{
    id::Id,
    provider::{MAX_PROVIDERS, NO_PROVIDER, Provider},
    request::Invalid,
};

use super::{Account, ask};
use crate::{
    docs::docs,
    error::{ApiError, Code},
};

/// Keeps a new provider.
pub async fn create_provider(env: &Env, provider: &Provider) -> Result<(), ApiError> {
    ask(env, "create-provider", provider).await
}

/// All providers, newest first.
pub async fn providers(env: &Env) -> Result<Vec<Provider>, ApiError> {
    ask(env, "providers", &()).await
}

/// One provider, if there is one with this id.
pub async fn provider(env: &Env, id: Id) -> Result<Option<Provider>, ApiError> {
    ask(env, "provider", &id).await
}

/// Forgets a provider, also as the default. Whether there was one.
pub async fn delete_provider(env: &Env, id: Id) -> Result<bool, ApiError> {
    ask(env, "delete-provider", &id).await
}

/// Where a job's output goes that names this provider.
pub async fn destination(env: &Env, named: Id) -> Result<Provider, ApiError> {
    ask(env, "destination", &named).await
}

impl Account {
    pub(super) fn create_provider(&self, provider: &Provider) -> Result<(), ApiError> {
        if self.providers()?.len() >= MAX_PROVIDERS {
            let message =
                format!("there are {MAX_PROVIDERS} storage providers, and no more can be kept; delete one first");
            return Err(ApiError::new(Code::Conflict, message));
        }
        let values = vec![provider.id.to_string().into(), serde_json::to_string(provider)?.into()];
        self.sql().exec("INSERT INTO providers (id, doc) VALUES (?, ?)", values)?;
        Ok(())
    }

    pub(super) fn providers(&self) -> Result<Vec<Provider>, ApiError> {
        docs(&self.sql(), "SELECT doc FROM providers ORDER BY id DESC", vec![])
    }

    pub(super) fn provider(&self, id: Id) -> Result<Option<Provider>, ApiError> {
        let sql = "SELECT doc FROM providers WHERE id = ?";
        Ok(docs(&self.sql(), sql, vec![id.to_string().into()])?.pop())
    }

    pub(super) async fn delete_provider(&self, id: Id) -> Result<bool, ApiError> {
        let deleted = self.sql().exec("DELETE FROM providers WHERE id = ?", vec![id.to_string().into()])?;
        let found = deleted.rows_written() > 0;
        let mut settings = self.settings()?;
        if settings.default_storage_provider_id == Some(id) {
            settings.default_storage_provider_id = None;
            self.keep_settings(&settings).await?;
        }
        Ok(found)
    }

    pub(super) fn destination(&self, named: Id) -> Result<Provider, ApiError> {
        let unknown = || Invalid { problems: vec![format!("storageProviderId: {NO_PROVIDER}")] };
        Ok(self.provider(named)?.ok_or_else(unknown)?)
    }
}
