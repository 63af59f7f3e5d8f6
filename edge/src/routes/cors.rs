//! Web pages that call the API: `CORS_ORIGINS` names them, and nobody else is let in.

use worker::{Env, Request, Response, Result};
use xora_shared::cors::{EXPOSED, HEADERS, METHODS, allows};

use crate::config;

/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: &str = "7200";

/// What a request's page may do.
pub struct Cors {
    /// Whether answers depend on the page at all.
    configured: bool,
    /// The page's origin, if it may call.
    origin: Option<String>,
}

impl Cors {
    /// Judges the page that a request comes from.
    pub fn of(env: &Env, req: &Request) -> Self {
        let Some(origins) = config::cors_origins(env) else { return Self { configured: false, origin: None } };
        let origin = req.headers().get("Origin").ok().flatten().filter(|origin| allows(&origins, origin));
        Self { configured: true, origin }
    }

    /// The answer to a preflight. To a page that may not call it permits nothing, and the browser stops there.
    pub fn preflight(&self) -> Result<Response> {
        let response = Response::empty()?.with_status(204);
        if self.origin.is_some() {
            let headers = response.headers();
            headers.set("Access-Control-Allow-Methods", METHODS)?;
            headers.set("Access-Control-Allow-Headers", HEADERS)?;
            headers.set("Access-Control-Max-Age", MAX_AGE)?;
        }
        self.open(response)
    }

    /// Lets the page read an answer, if it may.
    pub fn open(&self, response: Response) -> Result<Response> {
        // The headers of a socket's answer cannot be changed, and pages do not read them.
        if !self.configured || response.status_code() == 101 {
            return Ok(response);
        }
        let headers = response.headers();
        headers.append("Vary", "Origin")?;
        if let Some(origin) = &self.origin {
            headers.set("Access-Control-Allow-Origin", origin)?;
            headers.set("Access-Control-Expose-Headers", EXPOSED)?;
        }
        Ok(response)
    }
}

/// Whether a browser asks what it may do.
pub fn is_preflight(req: &Request) -> bool {
    let asks = req.headers().get("Access-Control-Request-Method").ok().flatten().is_some();
    req.method() == worker::Method::Options && asks
}
