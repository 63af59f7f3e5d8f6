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

/// Reads the documents that a query selects as `doc`, each with what it selects as `key`. One that cannot be read is an
/// error of its own.
pub fn keyed<T: DeserializeOwned>(
    sql: &SqlStorage,
    query: &str,
    values: Vec<SqlStorageValue>,
) -> Result<Vec<(String, Result<T, ApiError>)>, ApiError> {
    #[derive(Deserialize)]
    struct Keyed {
        key: String,
        doc: String,
    }
    let rows: Vec<Keyed> = sql.exec(query, values)?.to_array()?;
    Ok(rows.into_iter().map(|Keyed { key, doc }| (key, json::from_str(&doc).map_err(ApiError::from))).collect())
}

#[derive(Deserialize)]
struct Row {
    doc: String,
}
