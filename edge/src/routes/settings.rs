//! `/v1/settings`.

use serde_json::{Value, json};
use xora_shared::{
    answer::{WebhookSecret, WebhookTest},
    sign::hex,
};

use super::{Ask, Reply};
use crate::{
    account,
    auth::Scope,
    config,
    error::{ApiError, Code},
    webhook::{self, Outgoing},
};

/// `GET /v1/settings`
pub async fn read(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    Reply::of(200, &account::settings(&ask.site.env).await?)
}

/// `POST /v1/settings`, `PUT /v1/settings`
pub async fn merge(ask: &mut Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    let env = ask.site.env.clone();
    let body = ask.json().await?;
    Reply::of(200, &account::merge_settings(&env, body).await?)
}

/// `POST /v1/settings/webhook/test`: a realistic sample to the default URL, once, and how it went.
pub async fn test_webhook(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    let site = &ask.site;
    let Some(url) = account::settings(&site.env).await?.default_webhook_url else {
        let message =
            "no default webhook URL is set; set it with `PUT /v1/settings` {\"defaultWebhookUrl\": \"https://…\"}";
        return Err(ApiError::new(Code::ValidationError, message));
    };
    let body = sample(&site.origin).to_string();
    let secrets = account::secrets(&site.env).await?;
    let id = format!("test_{}", hex(&config::random::<12>()?));
    let outgoing = Outgoing { url: &url, id: &id, body, secrets: &secrets };
    let sent = webhook::send(outgoing, config::policy(&site.env)).await;
    Reply::of(200, &WebhookTest::of(sent.outcome, sent.status))
}

/// `GET /v1/settings/webhook/secret`
pub async fn secret(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    Reply::of(200, &WebhookSecret::of(account::secrets(&ask.site.env).await?))
}

/// `POST /v1/settings/webhook/secret/rotate`
pub async fn rotate_secret(ask: &Ask) -> Result<Reply, ApiError> {
    ask.needs(Scope::Settings)?;
    Reply::of(200, &WebhookSecret::of(account::rotate_secret(&ask.site.env).await?))
}

/// What the webhook of a completed job looks like.
fn sample(origin: &str) -> Value {
    let url = format!("{origin}/files/outputs/01JTESTJ0B0000000000000000/result.mp4?expires=0&signature=sample");
    json!({
        "data": {
            "jobId": "01JTESTJ0B0000000000000000",
            "state": "completed",
            "progress": 100,
            "output": {"signedUrl": url},
            "output_files": {"output": {
                "file_id": "01JTESTJ0B0000000000000000-output",
                "filename": "output.mp4",
                "size_mbytes": 12.5,
                "size_bytes": 12_500_000,
                "duration": 120.5,
                "file_type": "video",
                "file_format": "mp4",
                "mime_type": "video/mp4",
                "codec": "h264",
                "width": 1920,
                "height": 1080,
                "storage_url": url
            }}
        },
        "timestamp": config::now().0
    })
}
