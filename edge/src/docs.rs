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
    let rows = texts(sql, query, values)?;
    let mut docs = Vec::with_capacity(rows.len());
    for row in rows {
        docs.push(json::from_str(&row.doc)?);
    }
    Ok(docs)
}

/// A row that is read.
#[derive(Deserialize)]
pub struct Row {
    /// What the query selects as `doc`.
    pub doc: String,
}

/// Reads what a query selects as `doc`.
pub fn texts(sql: &SqlStorage, query: &str, values: Vec<SqlStorageValue>) -> Result<Vec<Row>, ApiError> {
    Ok(sql.exec(query, values)?.to_array()?)
}
