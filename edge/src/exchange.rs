//! Calls to other people's servers: no redirect is followed, and no answer takes more time or memory than it was given.

use std::{pin::pin, time::Duration};

use futures_util::{
    StreamExt,
    future::{Either, select},
};
use web_sys::{RequestInit, RequestRedirect};
use worker::{AbortController, Delay, Fetch, Headers, Request, Response};

/// What to send.
pub struct Outgoing<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// Where. Judged by whoever calls.
    pub url: &'a str,
    /// Names and values.
    pub headers: &'a [(&'static str, String)],
    /// The body, or nothing.
    pub body: &'a str,
}

/// What came back.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Headers,
    /// The body, or its start.
    pub text: String,
    /// Whether the body broke off, or did not come in time.
    pub cut: bool,
}

/// Why nothing came back.
pub enum Unanswered {
    /// No connection, or one that broke.
    Network,
    /// The time is over.
    Timeout,
}

/// Sends a request and waits for the answer and about `limit` bytes of its body. A status that came in time stands, however
/// the rest goes.
pub async fn exchange(outgoing: Outgoing<'_>, within: Duration, limit: usize) -> Result<Answer, Unanswered> {
    let controller = AbortController::default();
    let signal = controller.signal();
    let mut timeout = pin!(Delay::from(within));
    let sending = async { Fetch::Request(request(outgoing)?).send_with_signal(&signal).await };
    let answered = match select(pin!(sending), &mut timeout).await {
        Either::Left((Ok(response), _)) => Ok(read(response, timeout, limit).await),
        Either::Left((Err(_), _)) => Err(Unanswered::Network),
        Either::Right(((), _)) => Err(Unanswered::Timeout),
    };
    // Frees the connection of an answer that was not read to its end.
    controller.abort();
    answered
}

fn request(Outgoing { method, url, headers, body }: Outgoing<'_>) -> worker::Result<Request> {
    let all = Headers::new();
    for (name, value) in headers {
        all.set(name, value)?;
    }
    let init = RequestInit::new();
    init.set_method(method);
    init.set_headers(&all.0);
    if !body.is_empty() {
        init.set_body(&body.into());
    }
    init.set_redirect(RequestRedirect::Manual);
    Ok(web_sys::Request::new_with_str_and_init(url, &init)?.into())
}

async fn read(mut response: Response, timeout: impl Future<Output = ()> + Unpin, limit: usize) -> Answer {
    let mut bytes = Vec::new();
    let whole = match select(pin!(read_start(&mut response, &mut bytes, limit)), timeout).await {
        Either::Left((read, _)) => read.is_ok(),
        Either::Right(((), _)) => false,
    };
    bytes.truncate(limit);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Answer { status: response.status_code(), headers: response.headers().clone(), text, cut: !whole }
}

/// The first bytes of an answer, which may be endless: read as a stream and left there.
async fn read_start(response: &mut Response, bytes: &mut Vec<u8>, limit: usize) -> worker::Result<()> {
    // Some answers have no body.
    let Ok(mut stream) = response.stream() else { return Ok(()) };
    while bytes.len() < limit {
        match stream.next().await {
            Some(chunk) => bytes.extend(chunk?),
            None => break,
        }
    }
    Ok(())
}
