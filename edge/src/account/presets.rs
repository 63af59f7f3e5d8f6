//! Saved job configurations.

use worker::Env;
use xora_shared::preset::{MAX_PRESETS, Preset};

use super::{Account, ask};
use crate::{
    docs::docs,
    error::{ApiError, Code},
};

/// Keeps a new preset.
pub async fn create_preset(env: &Env, preset: &Preset) -> Result<(), ApiError> {
    ask(env, "create-preset", preset).await
}

/// All presets, newest first.
pub async fn presets(env: &Env) -> Result<Vec<Preset>, ApiError> {
    ask(env, "presets", &()).await
}

/// One preset, if there is one with this id.
pub async fn preset(env: &Env, id: &str) -> Result<Option<Preset>, ApiError> {
    ask(env, "preset", &id).await
}

/// Puts another in the place of the preset with its id, if there is one. Answers it, as old as the one before.
pub async fn replace_preset(env: &Env, preset: &Preset) -> Result<Option<Preset>, ApiError> {
    ask(env, "replace-preset", preset).await
}

/// Forgets a preset. Whether there was one.
pub async fn delete_preset(env: &Env, id: &str) -> Result<bool, ApiError> {
    ask(env, "delete-preset", &id).await
}

impl Account {
    pub(super) fn create_preset(&self, preset: &Preset) -> Result<(), ApiError> {
        if self.presets()?.len() >= MAX_PRESETS {
            let message = format!("there are {MAX_PRESETS} presets, and no more can be kept; delete one first");
            return Err(ApiError::new(Code::Conflict, message));
        }
        self.put_preset(preset)
    }

    pub(super) fn presets(&self) -> Result<Vec<Preset>, ApiError> {
        docs(&self.sql(), "SELECT doc FROM presets ORDER BY id DESC", vec![])
    }

    pub(super) fn preset(&self, id: &str) -> Result<Option<Preset>, ApiError> {
        let sql = "SELECT doc FROM presets WHERE id = ?";
        Ok(docs(&self.sql(), sql, vec![id.into()])?.pop())
    }

    pub(super) fn replace_preset(&self, preset: Preset) -> Result<Option<Preset>, ApiError> {
        let Some(before) = self.preset(&preset.id)? else { return Ok(None) };
        let preset = Preset { created_at: before.created_at, ..preset };
        self.put_preset(&preset)?;
        Ok(Some(preset))
    }

    pub(super) fn delete_preset(&self, id: &str) -> Result<bool, ApiError> {
        Ok(self.sql().exec("DELETE FROM presets WHERE id = ?", vec![id.into()])?.rows_written() > 0)
    }

    fn put_preset(&self, preset: &Preset) -> Result<(), ApiError> {
        let values = vec![preset.id.as_str().into(), serde_json::to_string(preset)?.into()];
        self.sql().exec("INSERT OR REPLACE INTO presets (id, doc) VALUES (?, ?)", values)?;
        Ok(())
    }
}
