//! Rows as both Durable Objects keep them: a key, the columns that queries need, and a JSON document.

use serde::{Deserialize, de::DeserializeOwned};
use worker::{SqlStorage, SqlStorageValue};
use xora_shared::json;

use crate::error::ApiError;

/// Reads the documents that a query selects as `doc`.
pub fn docs<T: DeserializeOwned>(
    sql: &SqlStorage,
    query: &str,
    values: Vec<SqlStorageValue>,
) -> Result<Vec<T>, ApiError> {
    let rows: Vec<Row> = sql.exec(query, values)?.to_array()?;
    let mut docs = Vec::with_capacity(rows.len());
    for row in rows {
        docs.push(json::from_str(&row.doc)?);
    }
    Ok(docs)
}

/// The key of a row, and its document or why that cannot be read.
pub type Keyed<T> = (String, Result<T, ApiError>);

/// Reads the documents that a query selects as `doc`, each with what it selects as `key`. One that cannot be read is an
/// error of its own.
pub fn keyed<T: DeserializeOwned>(
    sql: &SqlStorage,
    query: &str,
    values: Vec<SqlStorageValue>,
) -> Result<Vec<Keyed<T>>, ApiError> {
    #[derive(Deserialize)]
    struct WithKey {
        key: String,
        doc: String,
    }
    let rows: Vec<WithKey> = sql.exec(query, values)?.to_array()?;
    Ok(rows.into_iter().map(|WithKey { key, doc }| (key, json::from_str(&doc).map_err(ApiError::from))).collect())
}

#[derive(Deserialize)]
struct Row {
    doc: String,
}
