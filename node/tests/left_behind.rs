//! What a supervisor that is killed outright leaves behind: nothing.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn zygote_and_job_processes_are_gone_when_the_supervisor_is_killed() {
    let edge = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", edge.local_addr().expect("an address"));
    let lease = lease(&format!("{url}input.mp4"));
    thread::spawn(move || {
        for stream in edge.incoming().flatten() {
            let lease = lease.clone();
            thread::spawn(move || answer(stream, &lease));
        }
    });
    let mut node = Node(
        Command::new(env!("CARGO_BIN_EXE_xora-node"))
            .args(["--edge", &url, "--listen", "127.0.0.1:0", "--allow-loopback", "--slots", "1"])
            .env("XORA_NODE_TOKEN", "nte_test")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started"),
    );
    let zygote = wait_for("the zygote", || child_of(node.0.id()));
    // It waits for its input, which never comes.
    let job = wait_for("the job process", || child_of(zygote));

    node.0.kill().expect("killed");
    for process in [zygote, job] {
        wait_for("the end of what it started", || (!is_alive(process)).then_some(()));
    }
}

/// Ends with the test, also when that fails.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An edge that leases the same task again and again, and an origin that never answers.
fn answer(mut stream: TcpStream, lease: &str) {
    let mut request = BufReader::new(stream.try_clone().expect("a handle"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if request.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let _ = request.read_exact(&mut vec![0; length.unwrap_or(0)]);
    if head.starts_with("GET /input.mp4") {
        // Until the other end is gone.
        let _ = request.read_to_end(&mut Vec::new());
        return;
    }
    let (status, body) = if head.starts_with("POST /v1/node/lease") { ("200 OK", lease) } else { ("503 Busy", "") };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

fn lease(url: &str) -> String {
    let mut answer: serde_json::Value =
        serde_json::from_str(include_str!("../../shared/tests/wire/node/lease-answer.json")).expect("a golden file");
    answer["lease"]["inputs"] = json!([{ "url": url }]);
    answer.to_string()
}

/// A process that this one started, by its number.
fn child_of(parent: u32) -> Option<u32> {
    let numbers =
        fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.into_iter().find(|number| status(*number).is_some_and(|(_, its)| its == parent))
}

fn is_alive(process: u32) -> bool {
    // Whoever inherits a zombie may take its time.
    status(process).is_some_and(|(state, _)| state != "Z")
}

/// State and parent of a process.
fn status(process: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
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
