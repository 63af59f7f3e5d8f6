//! Sources against an origin that misbehaves, over real sockets.

use std::{collections::BTreeMap, future::Future, ops::Range, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};
use xora_shared::{
    net::{Policy, Refused},
    protocol::InputAt,
};

use super::*;

const LOOPBACK: Policy = Policy { allow_loopback: true };

/// A request as it came.
struct Ask {
    path: String,
    headers: BTreeMap<String, String>,
    /// How many came before.
    number: usize,
}

impl Ask {
    fn range(&self) -> Option<Range<usize>> {
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
    }
}

/// What goes back: bytes as they are, then the end of the connection, by reset if so wanted.
struct Reply {
    bytes: Vec<u8>,
    reset: bool,
    /// Keeps the connection open and silent.
    hang: bool,
}

impl Reply {
    fn new(head: &str, body: &[u8]) -> Self {
        let bytes = [head.replace('\n', "\r\n").as_bytes(), b"\r\nConnection: close\r\n\r\n", body].concat();
        Self { bytes, reset: false, hang: false }
    }

    fn status(status: u16) -> Self {
        Self::new(&format!("HTTP/1.1 {status} X\nContent-Length: 0"), b"")
    }

    fn part(file: &[u8], range: Range<usize>, more: &str) -> Self {
        let range = range.start..range.end.min(file.len());
        let (start, last, size) = (range.start, range.end - 1, file.len());
        let length = range.len();
        let head =
            format!("HTTP/1.1 206 Partial\nContent-Range: bytes {start}-{last}/{size}\nContent-Length: {length}{more}");
        Self::new(&head, &file[range])
    }

    fn redirect(to: &str) -> Self {
        Self::new(&format!("HTTP/1.1 302 Found\nLocation: {to}\nContent-Length: 0"), b"")
    }
}

struct Server {
    url: String,
    asked: mpsc::UnboundedReceiver<String>,
    /// Told when a client has hung up after its answer.
    left: mpsc::UnboundedReceiver<()>,
}

/// Serves on a free port until the test ends. Tells of each request as `path range`.
async fn serve(reply: impl Fn(&Ask) -> Reply + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (tell, asked) = mpsc::unbounded_channel();
    let (hung_up, left) = mpsc::unbounded_channel();
    let reply = Arc::new(reply);
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (reply, tell, hung_up) = (Arc::clone(&reply), tell.clone(), hung_up.clone());
            tokio::spawn(async move {
                answer_one(stream, number, &*reply, &tell).await;
                let _ = hung_up.send(());
            });
        }
    });
    Server { url, asked, left }
}

async fn answer_one(
    stream: TcpStream,
    number: usize,
    reply: &(impl Fn(&Ask) -> Reply + Send + Sync),
    tell: &mpsc::UnboundedSender<String>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let ask = Ask { path, headers, number };
    let range = ask.headers.get("range").map_or("", String::as_str);
    let _ = tell.send(format!("{} {range}", ask.path));
    let Reply { bytes, reset, hang } = reply(&ask);
    stream.write_all(&bytes).await.ok()?;
    stream.flush().await.ok()?;
    if reset {
        // The receiver must have what was sent before a reset throws it away.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = stream.get_ref().set_zero_linger();
        return None;
    }
    if hang {
        std::future::pending::<()>().await;
    }
    stream.shutdown().await.ok()?;
    stream.read_to_end(&mut Vec::new()).await.ok().map(drop)
}

/// Does something while time passes with each answer that a client has got, by a little more than it ever waits between two
/// tries. No timer runs by itself meanwhile: sockets do not know of a clock that stands still.
async fn while_time_passes<T>(server: &mut Server, work: impl Future<Output = T>) -> T {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    // The clock goes on by itself only where no such thread is at work; after half a minute of real time something is wrong.
    let _still = tokio::task::spawn_blocking(move || wait.recv_timeout(Duration::from_secs(30)));
    tokio::time::pause();
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            Some(()) = server.left.recv() => tokio::time::advance(Duration::from_secs(7)).await,
        }
    };
    drop(done);
    tokio::time::resume();
    result
}

fn file(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 251 + at).to_le_bytes()[0]).collect()
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), work).await.expect("within the deadline")
}

fn room() -> Arc<Room> {
    Arc::new(Room::new(std::env::temp_dir(), 64 << 20))
}

async fn open_as(url: &str, policy: Policy, headers: &[(&str, &str)], limit: u64) -> Result<Source, SourceFault> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let at = InputAt { url: url.to_owned(), headers, ours: false };
    let origin = Origin::judged(client::judged(policy).expect("client"), &at, policy)?;
    within(Source::open(origin, &room(), limit, HEAD)).await
}

async fn open(url: &str) -> Result<Source, SourceFault> {
    open_as(url, LOOPBACK, &[], u64::MAX).await
}

/// Reads everything as a job process does, and compares.
async fn reads_as(source: &Source, file: &[u8]) -> Result<(), SourceFault> {
    let mut at = 0;
    loop {
        let bytes = within(source.read(at as u64, 100_000)).await?;
        assert_eq!(bytes, file[at.min(file.len())..(at + 100_000).min(file.len())]);
        if bytes.is_empty() {
            return Ok(());
        }
        at += bytes.len();
    }
}

#[tokio::test]
async fn an_origin_with_ranges_is_read_whole_and_every_byte_is_counted() {
    let all = file(3_000_000);
    let served = all.clone();
    let server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    assert_eq!(source.size(), Some(3_000_000));
    reads_as(&source, &all).await.expect("reads");
    assert_eq!(source.received(), 3_000_000);
}

#[tokio::test]
async fn reads_that_hop_about_fetch_only_what_was_asked_for() {
    let all = file(40_000_000);
    let served = all.clone();
    let mut server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    for at in [30_000_001_usize, 5_000_000, 20_000_000, 30_000_001] {
        assert_eq!(within(source.read(at as u64, 65_536)).await.expect("reads"), all[at..at + 65_536]);
    }
    assert_eq!(source.received(), 4 * 65_536);
    assert_eq!(server.asked.recv().await.as_deref(), Some("/ bytes=0-65535"));
    assert_eq!(server.asked.recv().await.as_deref(), Some("/ bytes=30000001-30065536"));
}

#[tokio::test]
async fn what_will_be_read_whole_is_fetched_ahead_from_the_start() {
    let film = file(6 << 20);
    let served = film.clone();
    let mut server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    source.read_through();
    reads_as(&source, &film).await.expect("reads");
    let asked: Vec<String> = std::iter::from_fn(|| server.asked.try_recv().ok()).collect();
    assert!(asked.len() <= 4, "{asked:?}");
}

#[tokio::test]
async fn where_reading_may_end_at_any_time_little_is_fetched_ahead() {
    let film = file(24 << 20);
    let served = film.clone();
    let mut server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    for at in (0..12 << 20).step_by(1 << 20) {
        assert_eq!(within(source.read(at, 1 << 20)).await.expect("reads").len(), 1 << 20);
    }
    let asked: Vec<String> = std::iter::from_fn(|| server.asked.try_recv().ok()).collect();
    let ends = asked.iter().filter_map(|range| range.rsplit('-').next()?.parse::<u64>().ok());
    assert!(ends.max().is_some_and(|end| end < 18 << 20), "{asked:?}");
}

#[tokio::test]
async fn a_long_file_is_fetched_once_however_fast_it_comes_and_however_it_is_copied_meanwhile() {
    let film = file(48 << 20);
    let served = film.clone();
    let server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    source.read_through();
    let mut at = 0;
    while at < film.len() {
        let read = within(source.read(at as u64, 1 << 20)).await.expect("reads");
        assert!(read == film[at..at + read.len()], "other bytes at {at}");
        at += read.len();
        // Up to 2 MiB behind it, and before it.
        for place in [at.saturating_sub(3 << 20), at + (1 << 20)] {
            let copied = within(source.read_after(place as u64, 1 << 20)).await.expect("reads");
            assert!(
                copied == film[place.min(film.len())..(place + (1 << 20)).min(film.len())],
                "other bytes at {place}"
            );
        }
    }
    assert_eq!(source.received(), film.len() as u64);
}

#[tokio::test]
async fn what_is_left_out_on_the_way_does_not_end_a_direction_unless_it_is_much() {
    for (step, requests, read) in [(200_usize << 10, 4, 12 << 20), (600 << 10, 30, 5 << 20)] {
        let film = file(12 << 20);
        let served = film.clone();
        let mut server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
        let source = open(&server.url).await.expect("opens");
        source.read_through();
        for at in (0..film.len() - 16_384).step_by(step) {
            assert_eq!(within(source.read(at as u64, 16_384)).await.expect("reads"), film[at..at + 16_384]);
        }
        let asked: Vec<String> = std::iter::from_fn(|| server.asked.try_recv().ok()).collect();
        assert!(asked.len() <= requests, "{asked:?}");
        assert!(source.received() <= read, "{} bytes", source.received());
    }
}

#[tokio::test]
async fn places_that_alone_are_read_are_fetched_several_at_once_and_nothing_between_them() {
    let film = file(40_000_000);
    let served = film.clone();
    let mut server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    source.read_through();
    server.asked.recv().await.expect("the first bytes");
    let starts = (1..38).map(|number| number * 1_000_000);
    source.expect_only(&starts.clone().map(|start| start as u64..start as u64 + 20_000).collect::<Vec<_>>());
    // Nobody has read yet.
    for number in 1..=6 {
        assert_eq!(within(server.asked.recv()).await, Some(format!("/ bytes={number}000000-{number}019999")));
    }
    for start in starts.clone() {
        assert_eq!(within(source.read(start as u64, 20_000)).await.expect("reads"), film[start..start + 20_000]);
    }
    assert_eq!(source.received(), HEAD + starts.len() as u64 * 20_000);
    // What was said is a hint.
    assert_eq!(within(source.read(500_000, 100)).await.expect("reads"), film[500_000..500_100]);
}

#[tokio::test]
async fn an_origin_that_allows_no_more_requests_just_now_is_asked_again() {
    let film = file(40_000_000);
    let served = film.clone();
    let server = serve(move |ask| match ask.number % 3 {
        1 => Reply::status(429),
        _ => Reply::part(&served, ask.range().expect("a range"), ""),
    })
    .await;
    let source = open(&server.url).await.expect("opens");
    let starts = (1..20).map(|number| number * 1_000_000);
    source.expect_only(&starts.clone().map(|start| start as u64..start as u64 + 20_000).collect::<Vec<_>>());
    for start in starts {
        assert_eq!(within(source.read(start as u64, 20_000)).await.expect("reads"), film[start..start + 20_000]);
    }
}

#[tokio::test]
async fn places_that_make_no_sense_are_not_fetched() {
    let all = file(1_000_000);
    let served = all.clone();
    let server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    let places = [(900_000, 100), (u64::MAX, u64::MAX), (0, 0), (5, u64::MAX), (u64::MAX - 1, 3), (400_000, 400_010)];
    source.expect_only(&places.map(|(start, end)| start..end));
    for at in [0, 900_000, 300_000] {
        assert_eq!(within(source.read(at as u64, 100)).await.expect("reads"), all[at..at + 100]);
    }
    // One of them goes on to the end: what was on its way from there when it began comes once more.
    assert!(source.received() <= all.len() as u64 + 100_000, "{} bytes", source.received());
}

#[tokio::test]
async fn a_long_place_is_fetched_ahead_to_its_end_and_not_behind_it() {
    let film = file(40_000_000);
    let served = film.clone();
    let mut server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    source.expect_only(std::slice::from_ref(&(10_000_000..30_000_000)));
    for at in (10_000_000..30_000_000_usize).step_by(1_000_000) {
        let read = within(source.read(at as u64, 1_000_000)).await.expect("reads");
        assert!(read == film[at..at + 1_000_000], "other bytes at {at}");
    }
    assert_eq!(source.received(), HEAD + 20_000_000);
    let asked: Vec<String> = std::iter::from_fn(|| server.asked.try_recv().ok()).collect();
    assert!(asked.len() <= 8, "{asked:?}");
    // Who goes on behind it after all reads as if nothing had been said.
    for at in (30_000_000..40_000_000_usize).step_by(100_000) {
        assert!(within(source.read(at as u64, 100_000)).await.expect("reads") == film[at..at + 100_000]);
    }
    let asked = std::iter::from_fn(|| server.asked.try_recv().ok()).count();
    assert!(asked <= 20, "{asked} requests");
}

#[tokio::test]
async fn the_end_of_the_file_gives_fewer_bytes_and_then_none() {
    let served = file(1000);
    let server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let source = open(&server.url).await.expect("opens");
    assert_eq!(source.read(990, 100).await.expect("reads").len(), 10);
    assert_eq!(source.read(1000, 100).await.expect("reads").len(), 0);
    assert_eq!(source.read(u64::MAX, 100).await.expect("reads").len(), 0);
}

#[tokio::test]
async fn an_origin_without_ranges_is_spooled_once_and_readable_anywhere() {
    let all = file(2_000_000);
    let served = all.clone();
    let head = format!("HTTP/1.1 200 OK\nContent-Length: {}", all.len());
    let mut server = serve(move |_| Reply::new(&head, &served)).await;
    let source = open(&server.url).await.expect("opens");
    assert_eq!(source.size(), Some(2_000_000));
    assert_eq!(within(source.read(1_999_000, 5000)).await.expect("reads"), all[1_999_000..]);
    reads_as(&source, &all).await.expect("reads");
    drop(source);
    server.asked.recv().await.expect("one request");
    assert!(server.asked.try_recv().is_err(), "only one request");
}

#[tokio::test]
async fn a_body_without_a_length_is_read_to_its_end() {
    let all = file(300_000);
    let served = all.clone();
    let server = serve(move |_| Reply::new("HTTP/1.1 200 OK\nX: y", &served)).await;
    let source = open(&server.url).await.expect("opens");
    assert_eq!(source.size(), None);
    reads_as(&source, &all).await.expect("reads");
}

#[tokio::test]
async fn an_empty_file_has_size_0_however_the_origin_says_it() {
    for head in ["HTTP/1.1 416 No\nContent-Range: bytes */0\nContent-Length: 0", "HTTP/1.1 200 OK\nContent-Length: 0"] {
        let server = serve(move |_| Reply::new(head, b"")).await;
        let source = open(&server.url).await.expect("opens");
        assert_eq!(source.size(), Some(0), "{head}");
        assert_eq!(within(source.read(0, 10)).await, Ok(Vec::new()), "{head}");
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_trouble_that_passes_is_not() {
    for (status, asked) in [(404, &["/ bytes=0-65535"][..]), (401, &["/ bytes=0-65535"]), (410, &["/ bytes=0-65535"])] {
        let mut server = serve(move |_| Reply::status(status)).await;
        assert_eq!(open(&server.url).await.err(), Some(SourceFault::Status(status)));
        assert_eq!(std::iter::from_fn(|| server.asked.try_recv().ok()).collect::<Vec<_>>(), asked);
    }
    // It may be the range that is refused.
    let mut server = serve(|_| Reply::status(403)).await;
    assert_eq!(open(&server.url).await.err(), Some(SourceFault::Status(403)));
    assert_eq!(std::iter::from_fn(|| server.asked.try_recv().ok()).collect::<Vec<_>>(), ["/ bytes=0-65535", "/ "]);
    let all = file(1000);
    let served = all.clone();
    let server = serve(move |ask| match ask.number {
        0 | 1 => Reply::status(500),
        _ => Reply::part(&served, ask.range().expect("a range"), ""),
    })
    .await;
    reads_as(&open(&server.url).await.expect("opens at last"), &all).await.expect("reads");
}

#[tokio::test]
async fn an_origin_that_stays_in_trouble_is_unavailable() {
    let server = serve(|_| Reply::status(503)).await;
    assert_eq!(open(&server.url).await.err(), Some(SourceFault::Unavailable(Trouble::Status(503))));
}

#[tokio::test]
async fn a_reset_in_mid_read_is_taken_up_where_it_happened() {
    let all = file(400_000);
    let served = all.clone();
    let mut server = serve(move |ask| {
        let mut reply = Reply::part(&served, ask.range().expect("a range"), "");
        if ask.number == 1 {
            reply.bytes.truncate(reply.bytes.len() / 2);
            reply.reset = true;
        }
        reply
    })
    .await;
    let source = open(&server.url).await.expect("opens");
    reads_as(&source, &all).await.expect("reads");
    assert_eq!(source.received(), 400_000, "nothing twice");
    let _ = server.asked.recv().await;
}

#[tokio::test]
async fn a_file_shorter_than_promised_is_truncated_with_and_without_ranges() {
    let all = file(200_000);
    for ranges in [true, false] {
        let served = all.clone();
        let server = serve(move |ask| {
            // Says 300,000 and has 200,000.
            let range = ask.range().filter(|_| ranges).unwrap_or(0..300_000);
            let (start, end) = (range.start, range.end.min(300_000));
            let body = &served[start.min(200_000)..end.min(200_000)];
            let head = if ranges {
                format!("HTTP/1.1 206 Partial\nContent-Range: bytes {start}-{}/300000", end - 1)
            } else {
                "HTTP/1.1 200 OK".to_owned()
            };
            Reply::new(&format!("{head}\nContent-Length: {}", end - start), body)
        })
        .await;
        let source = open(&server.url).await.expect("opens");
        assert_eq!(within(source.read(0, 100_000)).await.expect("what there is can be read"), all[..100_000]);
        let fault = within(source.read(250_000, 1000)).await.expect_err("is not there");
        let cut = SourceFault::Truncated { at: if ranges { 250_000 } else { 200_000 }, promised: Some(300_000) };
        assert_eq!(fault, cut, "ranges: {ranges}");
    }
}

#[tokio::test]
async fn a_file_that_changes_in_mid_read_is_noticed() {
    for (before, after) in [
        ("\nETag: \"a\"\nLast-Modified: a", "\nETag: \"b\"\nLast-Modified: b"),
        ("\nLast-Modified: a", "\nLast-Modified: b"),
    ] {
        let served = file(400_000);
        let server = serve(move |ask| {
            Reply::part(&served, ask.range().expect("a range"), if ask.number == 0 { before } else { after })
        })
        .await;
        let source = open(&server.url).await.expect("opens");
        assert_eq!(within(source.read(200_000, 1000)).await, Err(SourceFault::Changed));
    }
    let server = serve(move |ask| {
        let size = if ask.number == 0 { 400_000 } else { 400_001 };
        Reply::part(&file(size), ask.range().expect("a range"), "")
    })
    .await;
    let source = open(&server.url).await.expect("opens");
    assert_eq!(within(source.read(200_000, 1000)).await, Err(SourceFault::Changed));
}

#[tokio::test]
async fn a_version_is_told_by_tag_or_time_and_by_whichever_answer_has_one() {
    for (answers, fault) in [
        (["\nETag: W/\"a\"", "\nETag: \"a\"", ""], None),
        (["\nETag: \"a\"\nLast-Modified: a", "\nETag: \"a\"\nLast-Modified: b", "\nLast-Modified: a"], None),
        // The hosts of a CDN.
        (
            ["\nETag: \"a\"\nLast-Modified: a", "\nETag: \"b\"\nLast-Modified: a", "\nETag: \"c\"\nLast-Modified: a"],
            None,
        ),
        (["", "\nETag: \"a\"", "\nETag: \"b\""], Some(SourceFault::Unsteady)),
        (["\nLast-Modified: a", "\nETag: \"a\"", "\nLast-Modified: b"], Some(SourceFault::Changed)),
    ] {
        let served = file(400_000);
        let server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), answers[ask.number])).await;
        let source = open(&server.url).await.expect("opens");
        within(source.read(200_000, 1000)).await.expect("no reason to doubt yet");
        let last = within(source.read(300_000, 1000)).await;
        assert_eq!(last.err(), fault, "{answers:?}");
    }
}

#[tokio::test]
async fn redirects_are_followed_and_credentials_stay_with_their_origin() {
    let all = file(1000);
    let served = all.clone();
    let target =
        serve(move |ask| match (ask.headers.contains_key("authorization"), ask.headers.get("accept-encoding")) {
            (false, Some(coding)) if coding == "identity" => Reply::part(&served, ask.range().expect("a range"), ""),
            _ => Reply::status(418),
        })
        .await;
    let to = target.url.clone();
    let server = serve(move |ask| match (ask.path.as_str(), ask.headers.contains_key("authorization")) {
        ("/a", true) => Reply::redirect("/b"),
        ("/b", true) => Reply::redirect(&format!("{to}/c?signature=x")),
        _ => Reply::status(401),
    })
    .await;
    let headers = [("Authorization", "Bearer secret"), ("Range", "bytes=5-6"), ("Accept-Encoding", "gzip")];
    let source = open_as(&format!("{}/a", server.url), LOOPBACK, &headers, u64::MAX).await.expect("opens");
    reads_as(&source, &all).await.expect("reads");
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_refused_at_any_hop() {
    for to in ["https://10.0.0.1/x", "http://169.254.169.254/latest", "https://[fd00::1]/", "https://printer.local/"] {
        let server =
            serve(move |ask| if ask.path == "/" { Reply::redirect("/next") } else { Reply::redirect(to) }).await;
        let fault = open(&server.url).await.err();
        assert!(matches!(fault, Some(SourceFault::Refused(Refused::Private | Refused::LocalName))), "{to}: {fault:?}");
    }
    let server = serve(|_| Reply::redirect("file:///etc/passwd")).await;
    assert!(matches!(open(&server.url).await.err(), Some(SourceFault::Refused(_))));
}

#[tokio::test]
async fn a_redirect_loop_ends() {
    let server = serve(|_| Reply::redirect("/again")).await;
    assert_eq!(open(&server.url).await.err(), Some(SourceFault::Redirects));
}

#[tokio::test]
async fn a_signed_target_that_expires_is_fetched_anew() {
    let all = file(400_000);
    let served = all.clone();
    let server = serve(move |ask| match ask.path.as_str() {
        "/" => Reply::redirect(&format!("/signed?{}", ask.number)),
        // Each signature is good for one request.
        path if path == format!("/signed?{}", ask.number - 1) => {
            Reply::part(&served, ask.range().expect("a range"), "")
        }
        _ => Reply::status(403),
    })
    .await;
    reads_as(&open(&server.url).await.expect("opens"), &all).await.expect("reads");
}

#[tokio::test]
async fn another_place_is_asked_for_where_the_one_that_a_redirect_led_to_does_not_answer() {
    let all = file(400_000);
    let served = all.clone();
    let server = serve(move |ask| match ask.path.as_str() {
        "/" => Reply::redirect(if ask.number == 0 { "/one" } else { "/other" }),
        "/one" if ask.number > 1 => Reply::status(503),
        _ => Reply::part(&served, ask.range().expect("a range"), ""),
    })
    .await;
    reads_as(&open(&server.url).await.expect("opens"), &all).await.expect("reads");
}

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let server = serve(|_| Reply::status(200)).await;
    let fault = open_as(&server.url, Policy { allow_loopback: false }, &[], u64::MAX).await.err();
    assert_eq!(fault, Some(SourceFault::Refused(Refused::Private)));
}

#[tokio::test]
async fn an_input_over_the_limit_is_refused_however_late_it_shows() {
    let served = file(10_000);
    let server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let fault = open_as(&server.url, LOOPBACK, &[], 9_999).await.err();
    assert_eq!(fault, Some(SourceFault::TooLarge { limit: 9_999, size: Some(10_000) }));
    let served = file(10_000);
    let server = serve(move |_| Reply::new("HTTP/1.1 200 OK\nX: y", &served)).await;
    let source = open_as(&server.url, LOOPBACK, &[], 9_999).await.expect("opens: no length is said");
    assert_eq!(within(source.read(0, 10_000)).await, Err(SourceFault::TooLarge { limit: 9_999, size: None }));
}

#[tokio::test]
async fn what_does_not_fit_the_spool_is_refused() {
    let head = format!("HTTP/1.1 200 OK\nContent-Length: {}", 65 << 20);
    let server = serve(move |_| Reply::new(&head, b"")).await;
    assert_eq!(open(&server.url).await.err(), Some(SourceFault::NoRoom { limit: 64 << 20 }));
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    for coding in ["gzip", "GZIP", "identity\nContent-Encoding: Br"] {
        let head = format!("HTTP/1.1 200 OK\nContent-Encoding: {coding}\nContent-Length: 3");
        let server = serve(move |_| Reply::new(&head, b"abc")).await;
        assert_eq!(open(&server.url).await.err(), Some(SourceFault::Encoded), "{coding}");
    }
}

#[tokio::test]
async fn an_origin_that_does_not_take_ranges_well_is_read_whole() {
    let all = file(300_000);
    for odd in ["HTTP/1.1 206 Partial", "HTTP/1.1 403 No", "HTTP/1.1 501 No", "HTTP/1.1 405 No", "HTTP/1.1 400 No"] {
        let served = all.clone();
        let mut server = serve(move |ask| match ask.range() {
            Some(range) => {
                let body = &served[range.start..range.end.min(served.len())];
                Reply::new(&format!("{odd}\nContent-Length: {}", body.len()), body)
            }
            None => Reply::new(&format!("HTTP/1.1 200 OK\nContent-Length: {}", served.len()), &served),
        })
        .await;
        reads_as(&open(&server.url).await.expect("opens"), &all).await.expect("reads");
        let asked: Vec<String> = std::iter::from_fn(|| server.asked.try_recv().ok()).collect();
        assert_eq!(asked, ["/ bytes=0-65535", "/ "], "{odd}");
    }
}

#[tokio::test]
async fn a_redirect_that_sets_a_cookie_and_returns_is_followed() {
    let all = file(1000);
    let served = all.clone();
    let server = serve(move |ask| match (ask.path.as_str(), ask.headers.get("cookie").map(String::as_str)) {
        ("/", Some("seen=yes; k=v=w")) => Reply::part(&served, ask.range().expect("a range"), ""),
        ("/", _) => Reply::redirect("/set"),
        _ => Reply::redirect("/\nSet-Cookie: seen=yes; Path=/; HttpOnly\nSet-Cookie: k=v=w"),
    })
    .await;
    reads_as(&open(&server.url).await.expect("opens"), &all).await.expect("reads");
    // Another origin does not get them.
    let other = serve(|ask| Reply::status(if ask.headers.contains_key("cookie") { 418 } else { 404 })).await;
    let to = other.url.clone();
    let server = serve(move |_| Reply::redirect(&format!("{to}/\nSet-Cookie: secret=1"))).await;
    assert_eq!(open(&server.url).await.err(), Some(SourceFault::Status(404)));
}

#[tokio::test]
async fn a_redirect_to_a_path_in_other_letters_is_followed() {
    let all = file(1000);
    let served = all.clone();
    let server = serve(move |ask| match ask.path.as_str() {
        "/" => Reply::redirect("/filme/für dich.mp4"),
        "/filme/f%C3%BCr%20dich.mp4" => Reply::part(&served, ask.range().expect("a range"), ""),
        _ => Reply::status(404),
    })
    .await;
    reads_as(&open(&server.url).await.expect("opens"), &all).await.expect("reads");
}

#[tokio::test]
async fn an_outage_of_45_seconds_in_mid_read_is_survived() {
    for ranges in [true, false] {
        let all = file(400_000);
        let (served, started) = (all.clone(), Instant::now());
        let mut server = serve(move |ask| {
            let range = ask.range().filter(|_| ranges).unwrap_or(0..served.len());
            let head = format!("HTTP/1.1 200 OK\nContent-Length: {}", served.len());
            match ask.number {
                0 if ranges => Reply::part(&served, range, ""),
                0 => Reply::new(&head, &served[..200_000]),
                _ if started.elapsed() < Duration::from_secs(45) => Reply::status(503),
                _ if ranges => Reply::part(&served, range, ""),
                _ => Reply::new(&head, &served),
            }
        })
        .await;
        let source = open(&server.url).await.expect("opens");
        let read = while_time_passes(&mut server, source.read(300_000, 1000)).await;
        assert!(read.as_deref() == Ok(&all[300_000..301_000]), "ranges: {ranges}, {:?}", read.err());
    }
}

#[tokio::test]
async fn an_outage_that_goes_on_ends_a_read_with_its_reason() {
    let served = file(400_000);
    let mut server = serve(move |ask| match ask.number {
        0 => Reply::part(&served, ask.range().expect("a range"), ""),
        _ => Reply::status(503),
    })
    .await;
    let (source, started) = (open(&server.url).await.expect("opens"), Instant::now());
    let read = while_time_passes(&mut server, source.read(300_000, 1000)).await;
    assert_eq!(read, Err(SourceFault::Unavailable(Trouble::Status(503))));
    assert!(started.elapsed() < Duration::from_mins(1), "a job may stand still no longer");
}

#[tokio::test]
async fn what_could_not_be_fetched_ahead_is_asked_for_again_when_it_is_needed() {
    let all = file(400_000);
    let served = all.clone();
    let mut server = serve(move |ask| match ask.number {
        1 => Reply::status(404),
        _ => Reply::part(&served, ask.range().expect("a range"), ""),
    })
    .await;
    let source = open(&server.url).await.expect("opens");
    server.left.recv().await.expect("the first bytes came");
    source.expect_end(100_000);
    server.left.recv().await.expect("the answer came");
    assert!(within(source.read(300_000, 1000)).await.as_deref() == Ok(&all[300_000..301_000]));
}

#[tokio::test]
async fn a_spool_that_nobody_waits_for_takes_up_its_transfer_when_somebody_does() {
    let all = file(400_000);
    let (served, started) = (all.clone(), Instant::now());
    let mut server = serve(move |ask| {
        let head = format!("HTTP/1.1 200 OK\nContent-Length: {}", served.len());
        match ask.number {
            0 => Reply::new(&head, &served[..200_000]),
            _ if started.elapsed() < Duration::from_secs(100) => Reply::status(503),
            _ => Reply::new(&head, &served),
        }
    })
    .await;
    let source = open(&server.url).await.expect("opens");
    assert!(within(source.read(0, 1000)).await.as_deref() == Ok(&all[..1000]));
    // Until it has given up, by the answers that it got.
    let given_up = async {
        while started.elapsed() < Duration::from_secs(50) {
            tokio::task::yield_now().await;
        }
    };
    while_time_passes(&mut server, given_up).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(1)).await;
    tokio::time::resume();
    assert!(within(source.read(399_000, 1000)).await.as_deref() == Ok(&all[399_000..]));
}

#[tokio::test]
async fn a_read_waits_for_a_slow_origin_without_losing_what_came() {
    let all = file(1_000_000);
    let served = all.clone();
    let server = serve(move |ask| {
        let mut reply = Reply::part(&served, ask.range().expect("a range"), "");
        reply.hang = ask.number == 1;
        if reply.hang {
            // All of the head, and half of what was asked for.
            let half = reply.bytes.len() / 2;
            reply.bytes.truncate(half);
        }
        reply
    })
    .await;
    let source = open(&server.url).await.expect("opens");
    let slow = source.read(100_000, 200_000);
    tokio::pin!(slow);
    assert!(timeout(Duration::from_millis(300), &mut slow).await.is_err(), "the origin says nothing more");
    // Others do not wait for it.
    assert_eq!(within(source.read(700_000, 10)).await.expect("reads"), all[700_000..700_010]);
}

#[tokio::test]
async fn an_index_at_the_end_is_fetched_at_once_after_the_head() {
    let mut all = file(2_000_000);
    all[..24].copy_from_slice(b"\0\0\0\x10ftypisom\0\0\0\0\0\x1b\x77\x40mdat");
    let served = all.clone();
    let mut server = serve(move |ask| Reply::part(&served, ask.range().expect("a range"), "")).await;
    let _source = open(&server.url).await.expect("opens");
    let index = 16 + 0x001b_7740;
    assert_eq!(within(server.asked.recv()).await.as_deref(), Some("/ bytes=0-65535"));
    assert_eq!(within(server.asked.recv()).await, Some(format!("/ bytes={index}-1999999")));
}
