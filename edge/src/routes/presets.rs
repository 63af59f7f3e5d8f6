//! `/v1/presets`: saved job configurations.

use serde_json::{Map, Value};
use worker::Env;
use xora_shared::{
    answer::PresetList,
    id::Place,
    preset::{Preset, PresetRequest, starters as all_starters},
    request::Invalid,
};

use super::{Ask, Reply};
use crate::{
    account,
    auth::Scope,
    config as deployment,
    error::{ApiError, Code},
};

/// `GET /v1/presets/starters`
pub fn starters(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    Reply::of(200, &PresetList { presets: all_starters() })
}

/// `POST /v1/presets`
pub async fn create(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    let request = PresetRequest::parse(&ask.json().await?, deployment::policy(&ask.site.env))?;
    let id = deployment::new_id(Place::FIRST)?;
    let preset = request.create(id.to_string(), deployment::now());
    account::create_preset(&ask.site.env, &preset).await?;
    Reply::of(201, &preset)
}

/// `GET /v1/presets`
pub async fn list(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    Reply::of(200, &PresetList { presets: account::presets(&ask.site.env).await? })
}

/// `GET /v1/presets/:id`
pub async fn read(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    Reply::of(200, &find(&ask.site.env, &ask.id_text).await?.ok_or_else(missing)?)
}

/// `PUT /v1/presets/:id`
pub async fn replace(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    changeable(&ask.id_text)?;
    let request = PresetRequest::parse(&ask.json().await?, deployment::policy(&ask.site.env))?;
    let preset = request.create(ask.id_text.clone(), deployment::now());
    let replaced = account::replace_preset(&ask.site.env, &preset).await?;
    Reply::of(200, &replaced.ok_or_else(missing)?)
}

/// `DELETE /v1/presets/:id`
pub async fn delete(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Jobs)?;
    changeable(&ask.id_text)?;
    let found = account::delete_preset(&ask.site.env, &ask.id_text).await?;
    if found { Ok(Reply::no_content()) } else { Err(missing()) }
}

/// The configuration that a job's `presetId` names.
pub async fn config(env: &Env, id: &str) -> Result<Map<String, Value>, ApiError> {
    let unknown = || Invalid { problems: vec!["presetId: names no preset; `GET /v1/presets` lists them".to_owned()] };
    Ok(find(env, id).await?.ok_or_else(unknown)?.config)
}

async fn find(env: &Env, id: &str) -> Result<Option<Preset>, ApiError> {
    match starter(id) {
        Some(starter) => Ok(Some(starter)),
        None => account::preset(env, id).await,
    }
}

fn starter(id: &str) -> Option<Preset> {
    all_starters().into_iter().find(|starter| starter.id == id)
}

fn changeable(id: &str) -> Result<(), ApiError> {
    let message = "a starter cannot be changed; create a preset with its configuration";
    starter(id).map_or(Ok(()), |_| Err(ApiError::new(Code::Conflict, message)))
}

fn missing() -> ApiError {
    ApiError::not_found("preset")
}
