//! One job process's side of the story: its frames are read and checked here, and its reads answered.
//!
//! Reads are answered by a task of their own. The loop that takes parts waits for storage at times; were it to answer
//! reads too, both sides could wait for each other for ever.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::AbortHandle,
    time::timeout,
};
use xora_shared::{
    failure::Stage,
    media::Format,
    report::{RunReport, Strategy, Unchanged, VerifyReport},
};

use crate::{
    board::Held,
    bounds::{Bounded, ENCODERS, LINES, LISTS, Pace, RANGES, STAGES, spend},
    ipc::{Assignment, FromJob, JobFailure, MAX_FRAME, MAX_MESSAGE, MAX_READ, ToJob, Up, frame_head},
    source::{Source, SourceFault},
};

/// Inputs that may all hold bytes in memory. Of more, only the one that is read.
pub const FEW: usize = 4;

/// A conversation with one job process. Dropping it ends it; the process is someone else's.
pub struct Conversation {
    from: OwnedReadHalf,
    reads: mpsc::Sender<Wanted>,
    sources: Arc<Vec<Source>>,
    /// Hardware encoders that it may use.
    hardware: Vec<String>,
    left: Left,
    pace: Pace,
    /// The longest frame that is taken now, in bytes.
    longest: usize,
    fault: Arc<OnceLock<SourceFault>>,
    answering: AbortHandle,
}

/// Messages of each kind that a job process may still send.
struct Left {
    lines: u32,
    stages: u32,
    encoders: u32,
    lists: u32,
}

/// What a job process says, reads left out.
#[derive(Debug)]
pub enum Heard {
    /// See [`Up::Stage`].
    Stage(Stage),
    /// See [`Up::Planned`].
    Planned {
        /// Why this way.
        strategy: Strategy,
        /// What is written.
        format: Format,
        /// About how long it becomes, in bytes.
        expected_bytes: u64,
        /// Size of every part but the last, in bytes.
        part_size: u64,
    },
    /// See [`Up::Progress`].
    Progress {
        /// Media time done, in microseconds.
        done_us: u64,
        /// Media time in all, in microseconds; 0 when unknown.
        total_us: u64,
    },
    /// See [`Up::InHardware`].
    InHardware(String),
    /// See [`Up::Log`].
    Log(String),
    /// See [`FromJob::Part`].
    Part {
        /// Part number, from 1.
        number: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// See [`Up::Produced`].
    Produced(Box<RunReport>),
    /// See [`Up::Unchanged`].
    Unchanged(Box<Unchanged>),
    /// See [`Up::Verified`].
    Verified(Box<VerifyReport>),
    /// See [`Up::Failed`].
    Failed(JobFailure),
}

/// Why a conversation broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The process is gone, without a last word.
    Died,
    /// It broke the rules.
    Breach(Breach),
    /// It has more memory than allowed.
    Overgrown,
    /// It has had more CPU time than allowed.
    Overspent,
}

/// Which rule a job process broke. None of these comes from a sound one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// A frame that is too long or not understood.
    Frame,
    /// A read of an input that there is not, too long, or before the one before it was answered.
    Read,
    /// A part of an output that there is not, unplanned, out of size, or sent twice; or one is missing at the end.
    Part,
    /// A message that does not belong here, or once too often; or a hardware encoder that is not allowed.
    Message,
}

struct Wanted {
    input: usize,
    offset: u64,
    length: u32,
}

impl Conversation {
    /// Gives the work to a job process and begins to answer its reads.
    pub async fn begin(
        stream: UnixStream,
        assignment: Assignment,
        sources: Arc<Vec<Source>>,
        held: Arc<Held>,
    ) -> io::Result<Self> {
        let (from, mut to) = stream.into_split();
        let hardware = assignment.hardware.clone();
        to.write_all(&ToJob::Assignment(Box::new(assignment)).to_frame()?).await?;
        // One read at a time: a second one while the first waits is a breach.
        let (reads, wanted) = mpsc::channel(1);
        let fault = Arc::new(OnceLock::new());
        let answering = tokio::spawn(answer(wanted, to, Arc::clone(&sources), held, Arc::clone(&fault))).abort_handle();
        let inputs = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        let lists = LISTS.saturating_mul(inputs);
        let left = Left { lines: LINES, stages: STAGES, encoders: ENCODERS, lists };
        let pace = Pace::new();
        Ok(Self { from, reads, sources, hardware, left, pace, longest: MAX_MESSAGE, fault, answering })
    }

    /// The next thing said.
    pub async fn next(&mut self) -> Result<Heard, Broken> {
        loop {
            match self.frame().await? {
                FromJob::Read { input, offset, length } => self.read(input, offset, length)?,
                FromJob::Part { output: 0, number, bytes } => return Ok(Heard::Part { number, bytes }),
                FromJob::Part { .. } => return Err(Broken::Breach(Breach::Part)),
                FromJob::Message(Up::Locked(Ok(_))) => {}
                FromJob::Message(Up::ExpectOnly { input, places }) => {
                    if places.len() > RANGES || !spend(&mut self.left.lists) {
                        return Err(Broken::Breach(Breach::Message));
                    }
                    let source = self.sources.get(input as usize).ok_or(Broken::Breach(Breach::Read))?;
                    source.expect_only(&places);
                }
                FromJob::Message(up) => return self.heard(up),
            }
        }
    }

    /// Why a read failed, if one did.
    pub fn fault(&self) -> Option<SourceFault> {
        self.fault.get().cloned()
    }

    async fn frame(&mut self) -> Result<FromJob, Broken> {
        const BREACH: Broken = Broken::Breach(Breach::Frame);
        let mut head = [0; 5];
        self.from.read_exact(&mut head).await.map_err(|_| Broken::Died)?;
        let (length, kind) = frame_head(head).map_err(|_| BREACH)?;
        if length > self.longest {
            return Err(BREACH);
        }
        // No page of it is there before its bytes come: a length is only a claim. Growing would copy, and hold twice.
        let mut payload = Vec::with_capacity(length);
        let read = (&mut self.from).take(length as u64).read_to_end(&mut payload).await.map_err(|_| Broken::Died)?;
        if read < length {
            return Err(Broken::Died);
        }
        let heard = FromJob::parse(kind, payload).map_err(|_| BREACH)?;
        // Reads wait for their answers, and parts are as many as the output may have.
        if matches!(heard, FromJob::Message(_)) {
            self.pace.take(length).await;
        }
        Ok(heard)
    }

    fn read(&self, input: u32, offset: u64, length: u32) -> Result<(), Broken> {
        if input as usize >= self.sources.len() || length > MAX_READ {
            return Err(Broken::Breach(Breach::Read));
        }
        match self.reads.try_send(Wanted { input: input as usize, offset, length }) {
            // When the answering task is gone, so is the process, and the next frame says so.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Broken::Breach(Breach::Read)),
        }
    }

    fn heard(&mut self, up: Up) -> Result<Heard, Broken> {
        Ok(match up {
            // It was to be locked down, and is not: it does no work.
            Up::Locked(Err(_)) => return Err(Broken::Died),
            Up::Stage(stage) if spend(&mut self.left.stages) => Heard::Stage(stage),
            Up::Planned { mut strategy, format, expected_bytes, part_size } => {
                strategy.bound();
                // From here on a part may come: its bytes, and 8 that say which.
                let part = usize::try_from(part_size.saturating_add(8)).unwrap_or(usize::MAX);
                self.longest = part.clamp(MAX_MESSAGE, MAX_FRAME as usize);
                Heard::Planned { strategy, format, expected_bytes, part_size }
            }
            Up::Progress { done_us, total_us } => Heard::Progress { done_us, total_us },
            Up::InHardware(encoder) if self.hardware.contains(&encoder) && spend(&mut self.left.encoders) => {
                Heard::InHardware(encoder)
            }
            Up::Log(line) if spend(&mut self.left.lines) => Heard::Log(line),
            Up::Produced(report) => Heard::Produced(bounded(report)),
            Up::Unchanged(report) => Heard::Unchanged(bounded(report)),
            Up::Verified(report) => Heard::Verified(bounded(report)),
            Up::Failed(mut failure) => {
                failure.bound();
                Heard::Failed(failure)
            }
            // Nobody asked for these here, or for so many of them; or they are taken before.
            Up::Locked(Ok(_))
            | Up::Stage(_)
            | Up::Encoders(_)
            | Up::NoFilters(_)
            | Up::InHardware(_)
            | Up::Log(_)
            | Up::ExpectOnly { .. } => {
                return Err(Broken::Breach(Breach::Message));
            }
        })
    }
}

#[allow(clippy::unnecessary_box_returns, reason = "it comes in a box, and is handed on in it")]
fn bounded<T: Bounded>(mut report: Box<T>) -> Box<T> {
    report.bound();
    report
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// Answers reads, one after the other, until the process or the conversation ends.
async fn answer(
    mut wanted: mpsc::Receiver<Wanted>,
    mut to: OwnedWriteHalf,
    sources: Arc<Vec<Source>>,
    held: Arc<Held>,
    fault: Arc<OnceLock<SourceFault>>,
) {
    let mut last = 0;
    while let Some(Wanted { input, offset, length }) = wanted.recv().await {
        let Some(source) = sources.get(input) else { return };
        if input != last && sources.len() > FEW {
            sources[last].forget();
        }
        last = input;
        let size = || source.size().unwrap_or_else(|| source.received());
        held.reading(true, 0, size());
        let answer = match read(source, offset, length.into(), &held).await {
            Ok(bytes) => ToJob::Data(bytes),
            Err(why) => {
                let _ = fault.set(why);
                ToJob::ReadFailed
            }
        };
        held.reading(false, length.into(), size());
        let Ok(frame) = answer.to_frame() else { return };
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// Reads from a source. Bytes that come are a sign of life, though what was asked for may lie far behind them in a file
/// that has to be fetched whole.
async fn read(source: &Source, offset: u64, length: u64, held: &Held) -> Result<Vec<u8>, SourceFault> {
    const LOOK: Duration = Duration::from_secs(1);
    source.follow(offset.saturating_add(length));
    let read = source.read(offset, length);
    tokio::pin!(read);
    let mut received = source.received();
    loop {
        if let Ok(answer) = timeout(LOOK, &mut read).await {
            return answer;
        }
        if source.received() > received {
            received = source.received();
            held.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream as StdStream, thread};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::Instant,
    };
    use xora_shared::{
        id::{Id, Place},
        job::lease::{Clock, Hold},
        net::Policy,
        protocol::InputAt,
        report::{Expectation, StrategyKind},
        time::UnixMs,
    };

    use super::*;
    use crate::{
        board::Board,
        ipc::{Limits, Source as About, Work},
        source::{HEAD, Origin, Room, client},
    };

    /// A file of 1000 bytes, behind an origin that serves it whole, or cut to `sent` bytes.
    async fn source(sent: usize) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n";
                let _ = stream.write_all(&[head.as_bytes(), &vec![7; sent]].concat()).await;
            }
        });
        let policy = Policy { allow_loopback: true };
        let at = InputAt { url, headers: xora_shared::request::Headers::new(), ours: false };
        let origin = Origin::judged(client::judged(policy).expect("client"), &at, policy).expect("allowed");
        let room = Arc::new(Room::new(std::env::temp_dir(), 1 << 20));
        Source::open(origin, &room, 1 << 20, HEAD).await.expect("opens")
    }

    /// What is heard of a job process that behaves like `process`, until it says its last word or breaks off.
    async fn hear(
        sent: usize,
        process: impl FnOnce(StdStream) + Send + 'static,
    ) -> (Vec<Heard>, Broken, Option<SourceFault>) {
        let (ours, mut theirs) = StdStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("nonblocking");
        thread::spawn(move || {
            assert!(matches!(ToJob::read(&mut theirs).expect("first frame"), ToJob::Assignment(_)));
            process(theirs);
        });
        let board = Arc::new(Board::default());
        let task_id = Id::new(UnixMs(1), 1, Place::new(0, 0).expect("in range"));
        let hold = Hold { task_id, token: "t".into(), fence: 1 };
        let held = board.hold(hold, Clock::STANDARD, Instant::now()).shared();
        let expect = Expectation { format: Format::Mp4, bytes: 1, video: None, audio: None, chapters: 0, cover: false };
        let work = Work::Verify { input: About { size: Some(1000) }, expect };
        let limits = Limits { duration_seconds: 1, pixels: 1, streams: 1, pictures: 1, output_bytes: 1 };
        let stream = UnixStream::from_std(ours).expect("a stream");
        let assignment = Assignment { work, limits, threads: 1, hardware: Vec::new() };
        let sources = Arc::new(vec![source(sent).await]);
        let mut talk = Conversation::begin(stream, assignment, sources, held).await.expect("begins");
        let mut all = Vec::new();
        loop {
            match timeout(Duration::from_secs(20), talk.next()).await.expect("within the deadline") {
                Ok(heard) => all.push(heard),
                Err(broken) => return (all, broken, talk.fault()),
            }
        }
    }

    fn planned(part_size: u64) -> FromJob {
        let strategy = Strategy { kind: StrategyKind::Encode, reasons: Vec::new() };
        FromJob::Message(Up::Planned { strategy, format: Format::Mp4, expected_bytes: 1, part_size })
    }

    fn part(output: u32, bytes: usize) -> FromJob {
        FromJob::Part { output, number: 1, bytes: vec![1; bytes] }
    }

    #[tokio::test]
    async fn reads_are_answered_while_nobody_listens_to_parts() {
        let (heard, broken, _) = hear(1000, |mut socket| {
            planned(8 << 20).write(&mut socket).expect("sent");
            FromJob::Read { input: 0, offset: 990, length: 100 }.write(&mut socket).expect("sent");
            let Ok(ToJob::Data(bytes)) = ToJob::read(&mut socket) else { panic!("no data") };
            assert_eq!(bytes, [7; 10]);
            part(0, 5).write(&mut socket).expect("sent");
        })
        .await;
        assert!(matches!(&heard[..], [Heard::Planned { .. }, Heard::Part { number: 1, bytes }] if bytes.len() == 5));
        assert_eq!(broken, Broken::Died, "it left without a last word");
    }

    #[tokio::test]
    async fn a_read_that_fails_is_told_without_the_reason_and_the_reason_kept() {
        let (_, _, fault) = hear(500, |mut socket| {
            FromJob::Read { input: 0, offset: 400, length: 200 }.write(&mut socket).expect("sent");
            assert!(matches!(ToJob::read(&mut socket), Ok(ToJob::ReadFailed)));
        })
        .await;
        assert_eq!(fault, Some(SourceFault::Truncated { at: 500, promised: Some(1000) }));
    }

    #[tokio::test]
    async fn every_bound_is_checked() {
        let read = |input, length| FromJob::Read { input, offset: 0, length };
        let places = |count| FromJob::Message(Up::ExpectOnly { input: 0, places: vec![0..1; count] });
        let table: Vec<(Vec<FromJob>, Breach)> = vec![
            (vec![read(1, 10)], Breach::Read),
            (vec![read(0, MAX_READ + 1)], Breach::Read),
            ((0..500).map(|_| read(0, 10)).collect(), Breach::Read),
            (vec![planned(8 << 20), part(1, 5)], Breach::Part),
            (vec![part(0, MAX_MESSAGE + 1)], Breach::Frame),
            (vec![planned(8 << 20), part(0, (8 << 20) + 1)], Breach::Frame),
            (vec![FromJob::Message(Up::InHardware("h264_of_theirs".into()))], Breach::Message),
            ((0..=LINES).map(|_| FromJob::Message(Up::Log("again".into()))).collect(), Breach::Message),
            ((0..=STAGES).map(|_| FromJob::Message(Up::Stage(Stage::Probe))).collect(), Breach::Message),
            ((0..=LISTS).map(|_| places(1)).collect(), Breach::Message),
            (vec![places(RANGES + 1)], Breach::Message),
        ];
        for (frames, expected) in table {
            let shown = format!("{:?}", frames.first()).chars().take(60).collect::<String>();
            let (_, broken, _) = hear(1000, move |mut socket| {
                for frame in frames {
                    // All at once; the supervisor may hang up in the middle.
                    let _ = frame.write(&mut socket);
                }
                // Stays until the supervisor is gone: it must not be the death of the process that is noticed.
                while ToJob::read(&mut socket).is_ok() {}
            })
            .await;
            assert_eq!(broken, Broken::Breach(expected), "{shown}");
        }
    }

    #[tokio::test]
    async fn frames_that_make_no_sense_are_a_breach_and_a_cut_one_a_death() {
        for (bytes, expected) in [
            (&[0, 0, 0, 0, 1][..], Broken::Breach(Breach::Frame)),
            (&[255, 255, 255, 255, 2], Broken::Breach(Breach::Frame)),
            (&[2, 0, 0, 0, 99, 0], Broken::Breach(Breach::Frame)),
            (&[3, 0, 0, 0, 3, b'{', b'}'], Broken::Breach(Breach::Frame)),
            (&[9, 0, 0, 0, 3, b'{'], Broken::Died),
            (&[9, 0], Broken::Died),
        ] {
            let (_, broken, _) = hear(1000, |mut socket| socket.write_all(bytes).expect("sent")).await;
            assert_eq!(broken, expected, "{bytes:?}");
        }
    }
}
