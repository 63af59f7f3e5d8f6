//! What keys and web pages may do, and how often.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::{join, join_all};
use reqwest::{Method, Response, Upgraded, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, time::timeout};
use xora_tests::{Client, Edge, EdgeOptions, Node, NodeOptions, Receiver, end_with_parent, root, wait_for};

use crate::{PATIENCE, edge, own_edge, thumbnail, webhooks::cancelled};

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back_and_others_are_served() -> Result<()> {
    end_with_parent();
    let edge = Edge::start(EdgeOptions { requests: Some(20), ..EdgeOptions::default() }).await?;
    let admin = edge.client();
    let busy = admin.with_key(&admin.mint("busy", &["settings"]).await?);
    let refused = wait_for("a refusal", PATIENCE, async || {
        let response = busy.request(Method::GET, "/v1/settings").send().await?;
        Ok(Some(response).filter(|response| response.status() != 200))
    });
    let refused = refused.await?;
    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"].to_str()?.parse()?;
    assert!((1..=60).contains(&seconds), "{seconds}");
    let body: Value = serde_json::from_slice(&refused.bytes().await?)?;
    assert_eq!((&body["error"]["code"], &body["error"]["retryable"]), (&json!("RATE_LIMITED"), &json!(true)));
    assert!(body["error"]["requestId"].is_string(), "{body}");

    // Another key is counted for itself, and nodes are not counted: this one asks more often than a key may.
    admin.get("/v1/settings").await?.expect(200)?;
    let node = admin.with_key(&admin.mint("node", &["node"]).await?);
    for _ in 0..30 {
        let asked = json!({"node": {"name": "n", "version": "0", "encoders": []}});
        node.post("/v1/node/lease", &asked).await?.expect(200)?;
    }
    Ok(())
}

/// How often `Account` was asked for something, by the lines that local builds log.
fn asked(edge: &Edge, op: &str) -> Result<usize> {
    Ok(edge.log()?.lines().filter(|line| line.contains("account is asked: ") && line.contains(op)).count())
}

/// A made-up key that has the form of one.
fn made_up(n: usize) -> String {
    format!("nte_{n:048}")
}

#[tokio::test]
async fn a_flood_of_made_up_keys_reaches_the_account_rarely_and_known_keys_are_served() -> Result<()> {
    /// Two windows of fifty: a flood may begin at the end of one.
    const MOST: usize = 100;
    let edge = own_edge().await?;
    let admin = edge.client();
    let known = admin.with_key(&admin.mint("known", &["jobs"]).await?);
    known.get("/v1/jobs?limit=1").await?.expect(200)?;
    let (before, began) = (asked(&edge, "verify")?, Instant::now());
    let (mut unknown, mut refused) = (0, 0);
    for round in 0..100 {
        let flood = (0..50).map(|n| {
            let stranger = admin.with_key(&made_up(round * 50 + n));
            async move { stranger.get("/v1/jobs?limit=1").await }
        });
        let (answers, served) = join(join_all(flood), known.get("/v1/jobs?limit=1")).await;
        served?.expect(200)?;
        for answer in answers {
            let answer = answer?;
            match (answer.status, answer.code()) {
                (401, "UNAUTHORIZED") => unknown += 1,
                (429, "RATE_LIMITED") => refused += 1,
                _ => panic!("{}: {}", answer.status, answer.json),
            }
        }
    }
    assert!(unknown <= MOST && unknown + refused == 5_000, "{unknown} and {refused}");
    // The known key itself is looked up again every 25 seconds.
    let again = usize::try_from(began.elapsed().as_secs() / 25)? + 1;
    let verified = asked(&edge, "verify")? - before;
    assert!((1..=MOST + again).contains(&verified), "{verified} look-ups");

    // A text of another form is no key, and asks for nothing.
    let before = asked(&edge, "")?;
    for text in ["nonsense", "nte_short", &"x".repeat(256), &made_up(1).replace('0', "-")] {
        assert_eq!(admin.with_key(text).get("/v1/jobs").await?.status, 401, "{text}");
    }
    assert_eq!(asked(&edge, "")?, before);
    Ok(())
}

#[tokio::test]
async fn unknown_keys_count_against_an_ipv6_network_and_not_against_its_neighbours() -> Result<()> {
    let edge = own_edge().await?;
    let admin = edge.client();
    let known = admin.mint("known", &["jobs"]).await?;
    let ask = async |key: &str, address: &str| {
        let client = admin.with_key(key);
        let request = client.request(Method::GET, "/v1/jobs?limit=1").header("CF-Connecting-IP", address);
        anyhow::Ok(request.send().await?.status().as_u16())
    };
    assert_eq!(ask(&known, "2001:db8:1:2::1").await?, 200);
    let mut n = 0;
    let refused = wait_for("a refusal", PATIENCE, async || {
        n += 1;
        let status = ask(&made_up(n), &format!("2001:db8:1:2::{n:x}")).await?;
        assert!([401, 429].contains(&status), "{status}");
        Ok((status == 429).then_some(()))
    });
    refused.await?;
    // The known key was one of the fifty.
    assert!(n >= 50, "after {n}");
    assert_eq!(ask(&made_up(n + 1), "2001:db8:1:3::1").await?, 401);
    assert_eq!(ask(&known, "2001:db8:1:2::1").await?, 200, "a known key is served whatever its neighbours do");
    Ok(())
}

#[test]
fn signed_links_stay_out_of_the_logs_of_a_deployment() -> Result<()> {
    let config: toml::Table = std::fs::read_to_string(root().join("wrangler.toml"))?.parse()?;
    let setting = &config["observability"]["redact_query_string"];
    assert_eq!(setting.as_bool(), Some(true), "wrangler.toml: {}", config["observability"]);
    // A setting that this wrangler did not know would do nothing.
    let schema = std::fs::read_to_string(root().join("node_modules/wrangler/config-schema.json"))?;
    let schema: Value = serde_json::from_str(&schema)?;
    let known = &schema["definitions"]["Observability"]["properties"]["redact_query_string"];
    assert_eq!(known["type"], "boolean", "{known}");
    Ok(())
}

#[tokio::test]
async fn webhooks_are_signed_without_asking_for_the_secret_each_time() -> Result<()> {
    const HOOKS: usize = 6;
    let edge = own_edge().await?;
    let receiver = Receiver::start().await?;
    for _ in 0..HOOKS {
        cancelled(&edge.client(), &receiver.url()).await?;
    }
    receiver.wait(HOOKS, PATIENCE).await?;
    let secrets = asked(&edge, "secrets")?;
    assert!((1..HOOKS).contains(&secrets), "asked {secrets} times for {HOOKS} webhooks");
    Ok(())
}

async fn preflight(edge: &Edge, origin: &str) -> Result<Response> {
    let client = edge.client().with_key("");
    let request = client.request(Method::OPTIONS, "/v1/jobs").header("Origin", origin);
    let request = request.header("Access-Control-Request-Method", "POST");
    Ok(request.header("Access-Control-Request-Headers", "authorization,content-type").send().await?)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[tokio::test]
async fn a_web_page_may_call_only_from_a_named_origin() -> Result<()> {
    const PAGE: &str = "https://app.example";
    end_with_parent();
    let vars = vec![("CORS_ORIGINS", format!("https://other.example, {PAGE}"))];
    let edge = Edge::start(EdgeOptions { vars, ..EdgeOptions::default() }).await?;
    let allowed = preflight(&edge, PAGE).await?;
    assert_eq!(allowed.status(), 204);
    assert_eq!(header(allowed.headers(), "access-control-allow-origin"), Some(PAGE));
    let headers = header(allowed.headers(), "access-control-allow-headers").context("headers")?.to_lowercase();
    for name in ["authorization", "content-type", "x-api-key"] {
        assert!(headers.contains(name), "{headers}");
    }
    assert!(
        header(allowed.headers(), "access-control-allow-methods").is_some_and(|methods| methods.contains("DELETE"))
    );

    let client = edge.client();
    for (key, status) in [(edge.key.as_str(), 200), ("", 401)] {
        let request = client.with_key(key).request(Method::GET, "/v1/settings").header("Origin", PAGE);
        let answer = request.send().await?;
        assert_eq!(answer.status(), status);
        assert_eq!(header(answer.headers(), "access-control-allow-origin"), Some(PAGE), "errors can be read as well");
        assert_eq!(header(answer.headers(), "vary"), Some("Origin"));
    }
    for stranger in ["https://evil.example", "http://app.example", "null"] {
        let refused = preflight(&edge, stranger).await?;
        assert_eq!(header(refused.headers(), "access-control-allow-origin"), None, "{stranger}");
        let answer = client.request(Method::GET, "/v1/settings").header("Origin", stranger).send().await?;
        assert_eq!(header(answer.headers(), "access-control-allow-origin"), None, "{stranger}");
    }
    Ok(())
}

#[tokio::test]
async fn no_web_page_may_call_unless_the_operator_says_so() -> Result<()> {
    let answer = preflight(edge().await?, "https://app.example").await?;
    assert_eq!(header(answer.headers(), "access-control-allow-origin"), None);
    Ok(())
}

#[tokio::test]
async fn a_node_key_works_for_nodes_and_for_nothing_else() -> Result<()> {
    let admin = edge().await?.client();
    let node = admin.with_key(&admin.mint("only a node", &["node"]).await?);
    let id = "01J00000000000000000000000";
    let calls = [
        (Method::POST, "/v1/jobs".to_owned()),
        (Method::GET, "/v1/jobs".to_owned()),
        (Method::GET, format!("/v1/jobs/{id}")),
        (Method::DELETE, format!("/v1/jobs/{id}")),
        (Method::GET, format!("/v1/jobs/{id}/events")),
        (Method::POST, format!("/v1/jobs/{id}/cancel")),
        (Method::POST, format!("/v1/jobs/{id}/retry")),
        (Method::GET, format!("/v1/jobs/{id}/deliveries")),
        (Method::POST, format!("/v1/deliveries/{id}/redeliver")),
        (Method::GET, "/v1/settings".to_owned()),
        (Method::PUT, "/v1/settings".to_owned()),
        (Method::POST, "/v1/settings/webhook/test".to_owned()),
        (Method::GET, "/v1/settings/webhook/secret".to_owned()),
        (Method::POST, "/v1/settings/webhook/secret/rotate".to_owned()),
        (Method::GET, "/v1/tokens".to_owned()),
        (Method::POST, "/v1/tokens".to_owned()),
        (Method::DELETE, format!("/v1/tokens/{id}")),
        (Method::GET, "/v1/nodes".to_owned()),
    ];
    for (method, path) in calls {
        let mut request = node.request(method.clone(), &path);
        if method != Method::GET {
            request = request.json(&json!({}));
        }
        let answer = request.send().await?;
        assert_eq!(answer.status(), 403, "{method} {path}");
        let body: Value = serde_json::from_slice(&answer.bytes().await?)?;
        assert_eq!(body["error"]["code"], "FORBIDDEN", "{method} {path}");
    }
    // And no other key speaks for a node.
    for path in ["lease", "heartbeat", "outputs/begin", "outputs/finish", "complete", "fail", "release"] {
        let answer = admin.post(&format!("/v1/node/{path}"), &json!({})).await?;
        assert_eq!((answer.status, answer.code()), (403, "FORBIDDEN"), "{path}");
    }
    Ok(())
}

/// Opens a wake-up socket, as a node does.
async fn wake_socket(client: &Client) -> Result<Response> {
    let request = client.request(Method::GET, "/v1/node/wake?shard=0&node=n");
    let request = request.header("Connection", "Upgrade").header("Upgrade", "websocket");
    let request = request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
    Ok(request.send().await?)
}

/// What a short frame of the edge's says, and its kind: 1 is text, 8 the end.
async fn frame(socket: &mut Upgraded) -> Result<(u8, String)> {
    let said = async {
        let (first, length) = (socket.read_u8().await?, socket.read_u8().await?);
        let mut text = vec![0; length.into()];
        socket.read_exact(&mut text).await?;
        anyhow::Ok((first & 0xf, String::from_utf8_lossy(&text).into_owned()))
    };
    // The contract names the time.
    timeout(Duration::from_secs(30), said).await.context("a frame")?
}

#[tokio::test]
async fn the_wake_up_socket_of_a_node_is_closed_when_its_key_is_revoked() -> Result<()> {
    let edge = own_edge().await?;
    let admin = edge.client();
    let mut nodes = Vec::new();
    for name in ["revoked", "other"] {
        let minted = admin.post("/v1/tokens", &json!({"name": name, "scopes": ["node"]})).await?.expect(201)?;
        let node = admin.with_key(minted["token"].as_str().context("a key")?);
        let socket = wake_socket(&node).await?;
        assert_eq!(socket.status(), 101);
        nodes.push((format!("/v1/tokens/{}", minted["id"].as_str().context("an id")?), node, socket.upgrade().await?));
    }
    let job = admin.create(&thumbnail("https://media.example.com/a.mp4")).await?;
    for (_, _, socket) in &mut nodes {
        assert_eq!(frame(socket).await?, (1, "wake".to_owned()));
    }
    let (token, node, socket) = &mut nodes[0];
    // One that is just being opened gets no further either.
    let (late, revoked) = join(wake_socket(node), admin.delete(token)).await;
    revoked?.expect(204)?;
    let (kind, why) = frame(socket).await?;
    assert!(kind == 8 && why.contains("revoked"), "{kind} {why}");
    match late? {
        opened if opened.status() == 101 => assert_eq!(frame(&mut opened.upgrade().await?).await?.0, 8),
        refused => assert_eq!(refused.status(), 401),
    }
    assert_eq!(wake_socket(node).await?.status(), 401);
    admin.cancel(&job).await?.expect(200)?;
    assert_eq!(frame(&mut nodes[1].2).await?, (1, "wake".to_owned()), "another key's goes on");
    Ok(())
}

#[tokio::test]
async fn a_key_says_when_it_was_last_used() -> Result<()> {
    let admin = edge().await?.client();
    let minted = admin.post("/v1/tokens", &json!({"name": "idle", "scopes": ["jobs"]})).await?.expect(201)?;
    let listed = async || {
        let tokens = admin.get("/v1/tokens").await?.expect(200)?["tokens"].take();
        let found = tokens.as_array().into_iter().flatten().find(|token| token["id"] == minted["id"]);
        found.cloned().context("the token")
    };
    let unused = listed().await?;
    assert!(unused.get("lastUsedAt").is_none(), "{unused}");
    assert!(unused.get("token").is_none() && unused.get("hash").is_none(), "{unused}");
    let client = admin.with_key(minted["token"].as_str().context("a key")?);
    client.get("/v1/jobs?limit=1").await?.expect(200)?;
    let used = listed().await?;
    assert!(used["lastUsedAt"].as_str() >= used["createdAt"].as_str(), "{used}");
    assert!(used["lastUsedAt"].is_string(), "{used}");
    Ok(())
}

#[tokio::test]
async fn nodes_are_listed_with_what_they_hold_and_when_they_were_seen() -> Result<()> {
    let edge = crate::own_edge().await?;
    let client = edge.client();
    assert_eq!(client.get("/v1/nodes").await?.expect(200)?, json!({"nodes": []}));
    let _node = Node::start(&edge, NodeOptions { name: "a node".to_owned(), ..NodeOptions::default() }).await?;
    let idle = client.get("/v1/nodes").await?.expect(200)?["nodes"][0].take();
    assert_eq!((&idle["name"], &idle["holds"]), (&json!("a node"), &json!([])), "{idle}");
    assert!(idle["version"].is_string() && idle["encoders"].is_array(), "{idle}");

    let origin = xora_tests::Origin::start().await?;
    let slow = crate::job(&origin.file(&crate::long_clip()?)?, "webm", &json!({"name": "compress"}));
    let id = client.create(&slow).await?;
    let running = client.when(&id, PATIENCE, |job| job["state"] == "transcoding").await?;
    let busy = client.get("/v1/nodes").await?.expect(200)?["nodes"][0].take();
    assert_eq!(busy["holds"][0]["jobId"], id.as_str(), "{busy}");
    assert_eq!(busy["holds"][0]["state"], "transcoding", "{busy}");
    assert!(busy["lastSeenAt"].as_str() > running["startedAt"].as_str(), "{busy}");
    client.cancel(&id).await?.expect(200)?;
    let done = client.get("/v1/nodes").await?.expect(200)?["nodes"][0].take();
    assert_eq!(done["holds"], json!([]), "{done}");
    Ok(())
}
