//! Saved job configurations.

use worker::Env;
use xora_shared::{
    id::{Id, Place},
    preset::{MAX_PRESETS, Preset, PresetRequest},
};

use super::{Account, Doc, ask};
use crate::{
    config,
    error::{ApiError, Code},
};

/// Keeps a new preset.
pub async fn create_preset(env: &Env, request: &PresetRequest) -> Result<Preset, ApiError> {
    ask(env, "create-preset", request).await
}

/// All presets, newest first.
pub async fn presets(env: &Env) -> Result<Vec<Preset>, ApiError> {
    ask(env, "presets", &()).await
}

/// One preset, if there is one with this id.
pub async fn preset(env: &Env, id: &str) -> Result<Option<Preset>, ApiError> {
    ask(env, "preset", &id).await
}

/// Puts another in a preset's place, if there is one with this id.
pub async fn replace_preset(env: &Env, id: &str, request: &PresetRequest) -> Result<Option<Preset>, ApiError> {
    ask(env, "replace-preset", &(id, request)).await
}

/// Forgets a preset. Whether there was one.
pub async fn delete_preset(env: &Env, id: &str) -> Result<bool, ApiError> {
    ask(env, "delete-preset", &id).await
}

impl Account {
    pub(super) fn create_preset(&self, request: PresetRequest) -> Result<Preset, ApiError> {
        if self.presets()?.len() >= MAX_PRESETS {
            let message = format!("there are {MAX_PRESETS} presets, and no more can be kept; delete one first");
            return Err(ApiError::new(Code::Conflict, message));
        }
        let id = Id::new(config::now(), u128::from_le_bytes(config::random()?), Place::FIRST);
        let preset = request.create(id.to_string(), config::now());
        self.put_preset(&preset)?;
        Ok(preset)
    }

    pub(super) fn presets(&self) -> Result<Vec<Preset>, ApiError> {
        let rows = self.sql().exec("SELECT doc FROM presets ORDER BY id DESC", None)?.to_array::<Doc>()?;
        rows.iter().map(|row| Ok(serde_json::from_str(&row.doc)?)).collect()
    }

    pub(super) fn preset(&self, id: &str) -> Result<Option<Preset>, ApiError> {
        let sql = "SELECT doc FROM presets WHERE id = ?";
        let found = self.sql().exec(sql, vec![id.into()])?.to_array::<Doc>()?.pop();
        Ok(found.map(|row| serde_json::from_str(&row.doc)).transpose()?)
    }

    pub(super) fn replace_preset(&self, asked: (String, PresetRequest)) -> Result<Option<Preset>, ApiError> {
        let (id, request) = asked;
        let Some(before) = self.preset(&id)? else { return Ok(None) };
        let preset = request.replace(before, config::now());
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
