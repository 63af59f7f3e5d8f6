//! What a node says of itself while it cannot work, and what it does not.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_mins(5);
const TOKEN: &str = "nte_verysecret";

/// A node whose edge answers everything with one status. Ends with the test, also when that fails.
struct Node {
    process: Child,
    listen: String,
    log: Arc<Mutex<String>>,
}

impl Node {
    fn start(edge: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_xora-node"))
            .args(["--edge", edge, "--listen", "127.0.0.1:0"])
            .env("XORA_NODE_TOKEN", TOKEN)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let log = Arc::new(Mutex::new(String::new()));
        let (errors, kept) = (BufReader::new(process.stderr.take().expect("piped")), Arc::clone(&log));
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let mut kept = kept.lock().expect("kept");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let mut node = Self { process, listen: String::new(), log };
        let listening = node.line("listening on ");
        listening.rsplit(' ').next().expect("an address").trim().clone_into(&mut node.listen);
        node
    }

    /// The first line of its log with this in it.
    fn line(&self, with: &str) -> String {
        wait_for(with, || self.log.lock().ok()?.lines().find(|line| line.contains(with)).map(str::to_owned))
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.listen).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::yield_now();
    }
}

/// An edge that answers every request like this.
fn edge(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, status, body));
        }
    });
    url
}

fn answer(mut stream: TcpStream, status: &str, body: &str) -> Option<()> {
    let mut request = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if request.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    request.read_exact(&mut vec![0; length.unwrap_or(0)]).ok()?;
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").ok()
}

#[test]
fn a_node_whose_edge_cannot_be_reached_says_so_and_lives() {
    // A port of nobody: it was free just now.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let node = Node::start(&format!("http://{free}"));
    let warning = node.line("no answer from the edge");
    assert!(warning.contains("WARN") && warning.contains("Connection refused"), "{warning}");
    for path in ["/healthz", "/readyz"] {
        let (status, body) = node.get(path);
        assert_eq!(status, 503, "{body}");
        assert!(body.contains(r#""ok":false"#) && body.contains("the edge has not answered yet"), "{body}");
        assert!(body.contains("Connection refused"), "{body}");
    }
    assert_eq!(node.get("/livez").0, 200);
}

#[test]
fn a_node_whose_key_is_refused_says_so() {
    let node = Node::start(&edge("401 Unauthorized", "{}"));
    node.line("refuses this node's key");
    let (status, body) = node.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("XORA_NODE_TOKEN"), "{body}");
}

#[test]
fn a_node_whose_edge_answers_is_well_and_shows_its_key_to_nobody() {
    let node = Node::start(&edge("200 OK", r#"{"lease":null,"shards":1}"#));
    node.line("connected to ");
    for path in ["/healthz", "/readyz"] {
        let (status, body) = node.get(path);
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(r#""ok":true,"problems":[]"#) && body.contains(r#""sandbox":"strict""#), "{body}");
    }
    let process = node.process.id();
    match fs::read(format!("/proc/{process}/environ")) {
        Ok(environment) => assert!(!String::from_utf8_lossy(&environment).contains(TOKEN)),
        // To its own user, too, unless that is root.
        Err(refused) => assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied),
    }
    let memory = node.line("of memory");
    assert!(memory.contains("slots"), "{memory}");
}
