//! The one place on a node that judges what went wrong: from what was seen to a kind of failure and a message for the
//! caller. Messages name no address, path or secret, and nothing is ever decided from them.

use std::time::Duration;

use xora_shared::{
    failure::{Failure, FailureKind, Stage},
    net::Refused,
    protocol::Lack,
};

use crate::{
    board::Halt,
    conversation::Breach,
    output::{NotTaken, StorageFault},
    source::{SourceFault, Trouble},
};

/// Why an attempt did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The input could not be read.
    Source(SourceFault),
    /// The job process understood what was wrong.
    Job {
        /// What.
        kind: FailureKind,
        /// For the caller.
        message: String,
    },
    /// The job process says that a read failed, and none did; or the index never fits.
    Confused,
    /// The job process went without a last word.
    Died {
        /// The signal that killed it, if one did.
        signal: Option<i32>,
    },
    /// The job process broke the rules.
    Breach(Breach),
    /// It took more memory than allowed, in bytes.
    Memory {
        /// The limit.
        limit: u64,
    },
    /// It had more CPU time than allowed.
    CpuTime {
        /// The limit.
        limit: Duration,
    },
    /// No job process could be started.
    NotStarted,
    /// The plan is to encode, and the node has no room for another encode.
    NoRoom,
    /// The output is over its limit, in bytes.
    OutputTooLarge {
        /// The limit.
        limit: u64,
    },
    /// Storage does not have the output.
    Storage(StorageFault),
    /// The output could not be read back.
    Unreadable(SourceFault),
    /// The output was read back and this is wrong.
    Problems(Vec<String>),
    /// It was stopped.
    Halted(Halt),
    /// One of several inputs, counted from 1, could not be opened.
    OfInput(usize, Box<Self>),
}

impl Cause {
    /// What becomes of a part that was not taken.
    pub fn not_taken(why: NotTaken, limit: u64) -> Self {
        match why {
            NotTaken::Breach(breach) => Self::Breach(breach),
            NotTaken::TooLarge => Self::OutputTooLarge { limit },
            NotTaken::Storage(fault) => Self::Storage(fault),
        }
    }
}

/// What the edge is told. None when nobody waits for word any more.
pub fn classify(cause: &Cause, stage: Stage) -> Option<Failure> {
    use FailureKind::{InputTooLarge, Misconfigured, OutputInvalid, ProcessDied, SandboxKilled, Storage};
    let (kind, message) = match cause {
        Cause::Source(fault) => of_source(fault),
        Cause::Job { kind, message } => (*kind, message.clone()),
        Cause::Confused | Cause::Breach(_) => (
            ProcessDied,
            "the media process misbehaved and was stopped; if this happens again, report the input".into(),
        ),
        Cause::Died { signal: Some(SIGSYS) } => (SandboxKilled, of_breakout(stage)),
        Cause::Died { signal } => (ProcessDied, of_death(*signal, stage)),
        Cause::Memory { limit } => {
            let message = format!(
                "the job needed more than {} of memory; use a smaller picture size or a shorter input \
                 (--max-job-memory-bytes of the node)",
                size(*limit)
            );
            (ProcessDied, message)
        }
        Cause::CpuTime { limit } => {
            let message = format!(
                "the job used up its limit of {} seconds of CPU time while {}; use a smaller picture size or a shorter input \
                 ({} of the node)",
                limit.as_secs(),
                doing(stage),
                if stage == Stage::Probe { "--max-open-seconds" } else { "--grace-seconds and --max-cpu-factor" }
            );
            (ProcessDied, message)
        }
        Cause::NotStarted => (ProcessDied, "the node could not start a media process; retry the job".into()),
        Cause::OutputTooLarge { limit } => {
            let message = format!(
                "the output is over the limit of {}; ask for a lower quality or size (--max-output-bytes of the node)",
                size(*limit)
            );
            (InputTooLarge, message)
        }
        Cause::NoRoom | Cause::Storage(StorageFault::Stale) => return None,
        Cause::Storage(StorageFault::Refused(status)) => {
            (Storage, format!("storage refused the output with status {status}; check the storage settings"))
        }
        Cause::Storage(StorageFault::Denied(said) | StorageFault::Moved(said)) => {
            let message = format!(
                "the bucket refused the output: {said}; check the storage provider's bucket and region, and what its key may do"
            );
            (Misconfigured, message)
        }
        Cause::Storage(StorageFault::Address) => {
            let message =
                "the bucket's endpoint is, or leads to, an address that this node must not reach; use a public one";
            (Misconfigured, message.into())
        }
        Cause::Storage(StorageFault::Gone) => {
            let message = "the storage provider of this job was deleted; create the job again with one that there is";
            (Misconfigured, message.into())
        }
        Cause::Storage(StorageFault::Unavailable | StorageFault::Stands | StorageFault::Unconditional) => {
            (Storage, "storage did not take the output, after several tries; retry the job later".into())
        }
        Cause::Unreadable(_) => {
            (Storage, "the output could not be read back from storage to verify it; retry the job later".into())
        }
        Cause::Problems(problems) => {
            let problems = problems.join("; ");
            (OutputInvalid, format!("the output was read back and is not what was meant: {problems}"))
        }
        Cause::Halted(halt) => of_halt(*halt, stage)?,
        Cause::OfInput(number, cause) => {
            let Failure { kind, message, .. } = classify(cause, stage)?;
            (kind, format!("input {number}: {message}"))
        }
    };
    Some(Failure { kind, stage, message: redacted(&message) })
}

/// What this node lacks for a task that another node may have, and whether it lacks it for as long as it is configured as
/// it is; none where every node would come to the same end.
pub fn lack(cause: &Cause) -> Option<(Lack, bool)> {
    Some(match cause {
        Cause::Source(fault) => return lack_of_source(fault),
        Cause::OfInput(_, cause) => return lack(cause),
        Cause::Job { kind, .. } => return lack_of_job(*kind),
        Cause::Memory { .. } => (Lack::Memory, true),
        // The kernel has no memory or no process number left for one more.
        Cause::NotStarted => (Lack::Memory, false),
        Cause::OutputTooLarge { .. } | Cause::Storage(StorageFault::Address) => (Lack::Policy, true),
        Cause::Confused
        | Cause::Died { .. }
        | Cause::Breach(_)
        | Cause::CpuTime { .. }
        | Cause::NoRoom
        | Cause::Storage(
            StorageFault::Stale
            | StorageFault::Refused(_)
            | StorageFault::Denied(_)
            | StorageFault::Moved(_)
            | StorageFault::Gone
            | StorageFault::Stands
            | StorageFault::Unconditional
            | StorageFault::Unavailable,
        )
        | Cause::Unreadable(_)
        | Cause::Problems(_)
        | Cause::Halted(_) => return None,
    })
}

fn lack_of_source(fault: &SourceFault) -> Option<(Lack, bool)> {
    match fault {
        // The policies of nodes differ in these only.
        SourceFault::Refused(Refused::Private | Refused::LocalName) | SourceFault::TooLarge { .. } => {
            Some((Lack::Policy, true))
        }
        SourceFault::NoRoom { .. } | SourceFault::Disk => Some((Lack::Disk, true)),
        SourceFault::Full => Some((Lack::Disk, false)),
        SourceFault::Refused(Refused::NotAUrl | Refused::NotHttps | Refused::Credentials | Refused::Literal)
        | SourceFault::Status(_)
        | SourceFault::Redirects
        | SourceFault::Encoded
        | SourceFault::Unavailable(_)
        | SourceFault::Changed
        | SourceFault::Unsteady
        | SourceFault::Truncated { .. } => None,
    }
}

fn lack_of_job(kind: FailureKind) -> Option<(Lack, bool)> {
    match kind {
        // Every limit that a job process holds is one of its node's.
        FailureKind::InputTooLarge => Some((Lack::Policy, true)),
        FailureKind::NoEncoder => Some((Lack::Encoder, true)),
        FailureKind::NoDecoder => Some((Lack::Decoder, true)),
        FailureKind::NoFilter => Some((Lack::Filter, true)),
        FailureKind::AddressRefused
        | FailureKind::OriginRefused
        | FailureKind::OriginUnavailable
        | FailureKind::InputUnsupported
        | FailureKind::InputTruncated
        | FailureKind::CommandRefused
        | FailureKind::Transcode
        | FailureKind::OutputInvalid
        | FailureKind::Storage
        | FailureKind::ProcessDied
        | FailureKind::SandboxKilled
        | FailureKind::NodeLost
        | FailureKind::Unclaimed
        | FailureKind::Misconfigured => None,
    }
}

fn of_source(fault: &SourceFault) -> (FailureKind, String) {
    use FailureKind::{
        AddressRefused, InputTooLarge, InputTruncated, Misconfigured, OriginRefused, OriginUnavailable, Unclaimed,
    };
    match fault {
        SourceFault::Refused(refused @ (Refused::Private | Refused::LocalName)) => (
            AddressRefused,
            format!(
                "the input's URL, or one it leads to, {refused}; the policy of the nodes does not allow this one \
                 (--allow-loopback of the node permits loopback addresses, for development)"
            ),
        ),
        SourceFault::Refused(refused) => (AddressRefused, format!("the input's URL, or one it leads to, {refused}")),
        SourceFault::Status(status @ (401 | 403)) => (
            OriginRefused,
            format!(
                "the origin answered {status}; check that the URL is still valid and that `input.headers` let us read it"
            ),
        ),
        SourceFault::Status(status @ (404 | 410)) => {
            (OriginRefused, format!("the origin answered {status}; check the input's URL"))
        }
        SourceFault::Status(429) => {
            (OriginRefused, "the origin answered 429: it allows no more requests just now; retry the job later".into())
        }
        SourceFault::Status(status) => (
            OriginRefused,
            format!("the origin answered {status}; it must answer a GET of the input's URL with the file"),
        ),
        SourceFault::Redirects => {
            (OriginRefused, "the origin redirects more than 5 times, or to nowhere; give the final URL".into())
        }
        SourceFault::Encoded => {
            (OriginRefused, "the origin compresses the file on its way; serve it without Content-Encoding".into())
        }
        SourceFault::Unavailable(trouble) => (OriginUnavailable, of_trouble(*trouble)),
        SourceFault::Changed | SourceFault::Unsteady => (
            OriginUnavailable,
            "the file at the origin changed while it was read; retry the job when the upload is finished".into(),
        ),
        SourceFault::Truncated { at, promised } => {
            let promised = promised.map_or_else(String::new, |promised| format!(" of the {promised} it promised"));
            (InputTruncated, format!("the origin sends only {at} bytes{promised}; upload the file again"))
        }
        SourceFault::TooLarge { limit, size: found } => {
            let found = found.map_or_else(|| "larger".to_owned(), size);
            let limit = size(*limit);
            (InputTooLarge, format!("the input is {found}; the limit is {limit} (--max-input-bytes of the node)"))
        }
        SourceFault::NoRoom { limit } => {
            let limit = size(*limit);
            let message = format!(
                "the origin does not serve byte ranges, and the file does not fit into the {limit} that the node keeps of \
                 such inputs together (--spool-bytes); use an origin that serves ranges"
            );
            (InputTooLarge, message)
        }
        SourceFault::Full => (
            Unclaimed,
            "the origin does not serve byte ranges, and the disk where the node keeps such inputs is full just now; retry \
             the job later, or use an origin that serves ranges"
                .into(),
        ),
        SourceFault::Disk => (Misconfigured, "the node cannot write to its spool directory; check --spool-dir".into()),
    }
}

fn of_trouble(trouble: Trouble) -> String {
    match trouble {
        Trouble::Status(status) => format!("the origin answered {status}, after several tries; retry the job later"),
        Trouble::Name => "the origin's name does not resolve; check the input's URL".into(),
        Trouble::Connect => "no connection to the origin, after several tries; retry the job later".into(),
        Trouble::Reset | Trouble::Ended => {
            "the connection to the origin broke, after several tries; retry the job later".into()
        }
        Trouble::Timeout => "the origin did not answer in time, after several tries; retry the job later".into(),
        Trouble::Odd => "the origin's answers to range requests make no sense; use another origin".into(),
    }
}

/// What a system call filter kills with.
const SIGSYS: i32 = rustix::process::Signal::SYS.as_raw();

fn of_breakout(stage: Stage) -> String {
    format!(
        "the media process was killed while {}, because it made a system call that the sandbox forbids; that says nothing of \
         the input: retry the job, and if it happens again, tell the operator of the node",
        doing(stage)
    )
}

fn of_death(signal: Option<i32>, stage: Stage) -> String {
    let doing = doing(stage);
    match signal {
        // What the kernel sends when memory runs out, and what a crash sends.
        Some(9) => format!("the media process was killed while {doing}, probably for want of memory; retry the job"),
        Some(signal) => format!("the media process crashed while {doing} (signal {signal}); the input may be damaged"),
        None => format!("the media process ended unexpectedly while {doing}; retry the job"),
    }
}

fn of_halt(halt: Halt, stage: Stage) -> Option<(FailureKind, String)> {
    let doing = doing(stage);
    match halt {
        Halt::Cancelled | Halt::Lost | Halt::Drained => None,
        Halt::Stalled { reading: true } => Some((
            FailureKind::OriginUnavailable,
            format!("the origin sent nothing for too long while {doing}; retry the job later"),
        )),
        Halt::Stalled { reading: false } => Some((
            FailureKind::ProcessDied,
            format!("the job stalled while {doing}: nothing advanced for too long, so it was stopped"),
        )),
        Halt::Late { limit } => {
            let limit = limit.as_secs();
            let message = format!(
                "the job used up its limit of {limit} seconds while {doing}; use a shorter input (--grace-seconds, \
                 --max-wall-factor and --max-attempt-seconds of the node)"
            );
            Some((FailureKind::ProcessDied, message))
        }
    }
}

const fn doing(stage: Stage) -> &'static str {
    match stage {
        Stage::Probe => "reading the input",
        Stage::Plan => "deciding what to do",
        Stage::Transcode => "processing",
        Stage::Merge => "joining chunks",
        Stage::Upload => "uploading",
        Stage::Verify => "verifying the output",
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// Cuts the query off every URL in a text: it may carry a signature. And bounds the text.
fn redacted(text: &str) -> String {
    const MOST: usize = 1000;
    let mut out = String::new();
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            out.push(' ');
        }
        match word.split_once('?') {
            Some((url, _)) if url.contains("://") => out.extend([url, "?…"]),
            Some(_) | None => out.push_str(word),
        }
    }
    out.chars().filter(|c| !c.is_control()).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(cause: &Cause) -> Option<FailureKind> {
        classify(cause, Stage::Transcode).map(|failure| failure.kind)
    }

    #[test]
    fn every_cause_has_the_kind_that_the_table_says() {
        use FailureKind::*;
        let table = [
            (Cause::Source(SourceFault::Refused(Refused::Private)), AddressRefused),
            (Cause::Source(SourceFault::Status(404)), OriginRefused),
            (Cause::Source(SourceFault::Redirects), OriginRefused),
            (Cause::Source(SourceFault::Encoded), OriginRefused),
            (Cause::Source(SourceFault::Unavailable(Trouble::Status(503))), OriginUnavailable),
            (Cause::Source(SourceFault::Unavailable(Trouble::Name)), OriginUnavailable),
            (Cause::Source(SourceFault::Changed), OriginUnavailable),
            (Cause::Source(SourceFault::Truncated { at: 5, promised: Some(9) }), InputTruncated),
            (Cause::Source(SourceFault::TooLarge { limit: 5, size: None }), InputTooLarge),
            (Cause::Source(SourceFault::NoRoom { limit: 5 }), InputTooLarge),
            (Cause::Source(SourceFault::Full), Unclaimed),
            (Cause::Source(SourceFault::Disk), Misconfigured),
            (Cause::Job { kind: InputUnsupported, message: "x".into() }, InputUnsupported),
            (Cause::Confused, ProcessDied),
            (Cause::Died { signal: Some(11) }, ProcessDied),
            (Cause::Died { signal: Some(31) }, SandboxKilled),
            (Cause::Breach(Breach::Frame), ProcessDied),
            (Cause::Memory { limit: 5 }, ProcessDied),
            (Cause::CpuTime { limit: Duration::from_secs(5) }, ProcessDied),
            (Cause::NotStarted, ProcessDied),
            (Cause::OutputTooLarge { limit: 5 }, InputTooLarge),
            (Cause::Storage(StorageFault::Unavailable), Storage),
            (Cause::Storage(StorageFault::Refused(400)), Storage),
            (Cause::Storage(StorageFault::Denied("it answers 403 AccessDenied".into())), Misconfigured),
            (Cause::Storage(StorageFault::Address), Misconfigured),
            (Cause::Storage(StorageFault::Gone), Misconfigured),
            (Cause::Unreadable(SourceFault::Status(404)), Storage),
            (Cause::Problems(vec!["short".into()]), OutputInvalid),
            (Cause::Halted(Halt::Stalled { reading: true }), OriginUnavailable),
            (Cause::Halted(Halt::Stalled { reading: false }), ProcessDied),
            (Cause::Halted(Halt::Late { limit: Duration::from_secs(5) }), ProcessDied),
        ];
        for (cause, expected) in table {
            assert_eq!(kind(&cause), Some(expected), "{cause:?}");
        }
    }

    #[test]
    fn what_one_node_lacks_is_for_another_to_do_and_what_passes_never_ends_a_job() {
        let (job, source) = (|kind| Cause::Job { kind, message: "x".into() }, Cause::Source);
        let table = [
            (source(SourceFault::Refused(Refused::Private)), Some((Lack::Policy, true))),
            (source(SourceFault::Refused(Refused::LocalName)), Some((Lack::Policy, true))),
            (source(SourceFault::Refused(Refused::Credentials)), None),
            (source(SourceFault::TooLarge { limit: 5, size: Some(6) }), Some((Lack::Policy, true))),
            (Cause::OfInput(2, Box::new(source(SourceFault::Full))), Some((Lack::Disk, false))),
            (source(SourceFault::NoRoom { limit: 5 }), Some((Lack::Disk, true))),
            (source(SourceFault::Disk), Some((Lack::Disk, true))),
            (source(SourceFault::Status(404)), None),
            (job(FailureKind::InputTooLarge), Some((Lack::Policy, true))),
            (job(FailureKind::NoEncoder), Some((Lack::Encoder, true))),
            (job(FailureKind::NoDecoder), Some((Lack::Decoder, true))),
            (job(FailureKind::NoFilter), Some((Lack::Filter, true))),
            (job(FailureKind::InputUnsupported), None),
            (job(FailureKind::Transcode), None),
            (Cause::OutputTooLarge { limit: 5 }, Some((Lack::Policy, true))),
            (Cause::Memory { limit: 5 }, Some((Lack::Memory, true))),
            (Cause::NotStarted, Some((Lack::Memory, false))),
            (Cause::Storage(StorageFault::Address), Some((Lack::Policy, true))),
            (Cause::Storage(StorageFault::Unavailable), None),
            (Cause::Died { signal: Some(11) }, None),
        ];
        for (cause, expected) in table {
            assert_eq!(lack(&cause), expected, "{cause:?}");
            assert!(classify(&cause, Stage::Probe).is_some(), "it says why: {cause:?}");
        }
    }

    #[test]
    fn a_limit_is_named_with_what_the_input_has() {
        let said = |fault| classify(&Cause::Source(fault), Stage::Probe).expect("told").message;
        let large = said(SourceFault::TooLarge { limit: 5_000_000, size: Some(7_000_000) });
        assert_eq!(large, "the input is 7 MB; the limit is 5 MB (--max-input-bytes of the node)");
        let private = said(SourceFault::Refused(Refused::Private));
        assert!(private.contains("policy") && private.contains("--allow-loopback"), "{private}");
    }

    #[test]
    fn one_of_several_inputs_is_named() {
        let cause = Cause::OfInput(2, Box::new(Cause::Source(SourceFault::Status(404))));
        let failure = classify(&cause, Stage::Probe).expect("told");
        assert_eq!(failure.kind, FailureKind::OriginRefused);
        assert!(failure.message.starts_with("input 2: the origin answered 404"), "{}", failure.message);
    }

    #[test]
    fn nobody_is_told_when_nobody_waits() {
        for halt in [Halt::Cancelled, Halt::Lost, Halt::Drained] {
            assert_eq!(kind(&Cause::Halted(halt)), None, "{halt:?}");
        }
        assert_eq!(kind(&Cause::Storage(StorageFault::Stale)), None);
        assert_eq!(kind(&Cause::NoRoom), None);
    }

    #[test]
    fn a_message_carries_no_query_of_a_url() {
        assert_eq!(redacted("see https://a.b/c?signature=1 and what? yes"), "see https://a.b/c?… and what? yes");
    }
}
