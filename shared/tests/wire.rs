//! The wire, proven by golden files: each is read as its type and written again, and must come out as it stands.
//!
//! The files double as documentation of the protocol between edge and node and of what callers see. A change of a type
//! that changes a file is a change of the wire: old nodes and old edges must still understand each other.

use std::{fs, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use xora_shared::{
    job::view::{JobRecord, JobView},
    net::Policy,
    protocol::{
        Complete, Fail, Heartbeat, HeartbeatAnswer, InputBegin, InputBegun, InputFinish, Lack, LeaseAnswer,
        LeaseRequest, OutputBegin, OutputBegun, OutputFinish, OutputFinished, OutputTargets, PartTarget, Release, Word,
    },
    request::{Headers, JobRequest},
    settings::Settings,
    time::UnixMs,
    upload::{Layout, UploadView},
};

#[test]
fn every_message_between_edge_and_node_reads_and_writes_as_its_file_stands() {
    round_trip::<LeaseRequest>("node/lease-request");
    round_trip::<LeaseAnswer>("node/lease-answer");
    round_trip::<LeaseAnswer>("node/lease-answer-none");
    round_trip::<Heartbeat>("node/heartbeat");
    round_trip::<HeartbeatAnswer>("node/heartbeat-answer");
    round_trip::<OutputBegin>("node/output-begin");
    round_trip::<OutputBegun>("node/output-begun");
    round_trip::<OutputBegun>("node/output-begun-single");
    round_trip::<OutputTargets>("node/output-targets");
    round_trip::<OutputTargets>("node/output-targets-moved");
    round_trip::<OutputFinish>("node/output-finish");
    round_trip::<OutputFinished>("node/output-finished");
    round_trip::<InputBegin>("node/input-begin");
    round_trip::<InputBegun>("node/input-begun");
    round_trip::<InputFinish>("node/input-finish");
    round_trip::<Complete>("node/complete");
    round_trip::<Fail>("node/fail");
    round_trip::<Release>("node/release");
    round_trip::<Release>("node/release-reason");
    round_trip::<Settings>("settings");
}

#[test]
fn messages_of_a_newer_deployment_are_understood() {
    for file in ["node/lease-request", "node/heartbeat", "node/complete", "node/fail"] {
        let mut message = golden(file);
        message["fieldOfTheFuture"] = json!({"a": 1});
        message["hold"]["other"] = json!(1);
        let read = match file {
            "node/lease-request" => serde_json::from_value::<LeaseRequest>(message).is_ok(),
            "node/heartbeat" => serde_json::from_value::<Heartbeat>(message).is_ok(),
            "node/complete" => serde_json::from_value::<Complete>(message).is_ok(),
            _ => serde_json::from_value::<Fail>(message).is_ok(),
        };
        assert!(read, "{file}");
    }
    // A node that is older than its edge goes on with what it does not understand.
    let words = serde_json::from_value::<HeartbeatAnswer>(json!({"words": ["continue", "word_of_the_future"]}));
    assert_eq!(words.expect("understood").words, [Word::Continue, Word::Unknown]);
}

#[test]
fn a_task_is_given_back_by_nodes_older_and_newer_than_the_edge() {
    let hold = golden("node/release")["hold"].take();
    let read = |message| serde_json::from_value::<Release>(message).expect("reads");
    let older = read(json!({ "hold": hold }));
    assert_eq!((older.heavy, older.reason), (false, None));
    let mut newer = golden("node/release-reason");
    newer["reason"]["lack"] = json!("licence");
    newer["reason"]["needed"] = json!({"seats": 1});
    assert_eq!(read(newer).reason.map(|reason| reason.lack), Some(Lack::Other));
}

#[test]
fn callers_requests_are_kept_as_their_files_say() {
    for name in ["compress", "thumbnail", "upload", "concat"] {
        let request = JobRequest::parse(&golden(&format!("request/{name}")), Policy::default()).expect("valid");
        same(&format!("request/{name}-stored"), &request);
    }
}

#[test]
fn callers_see_jobs_as_the_files_say() {
    for state in ["queued", "transcoding", "completed", "passed-through", "failed"] {
        let record: JobRecord = serde_json::from_value(golden(&format!("job/{state}-record"))).expect("reads");
        same(&format!("job/{state}-record"), &record);
        same(&format!("job/{state}"), &JobView::of(record, |key| format!("https://xora.example/files/{key}?signed")));
    }
}

#[test]
fn callers_see_uploads_as_the_file_says() {
    let id = "01M86XHHP6260EWAT1TBY7T000".parse().expect("an id");
    let size = 40_000_000;
    let part = |number| PartTarget {
        number,
        url: format!(
            "https://xora.example/files/uploads/{id}/source?part={number}&upload=u&expires=1795615075&signature=s"
        ),
        headers: Headers::new(),
    };
    same(
        "upload",
        &UploadView {
            upload_id: id,
            filename: "talk.mov".into(),
            size,
            part_size: Layout::of(size).part_size,
            arrived: vec![2],
            parts: [1, 3].map(part).into(),
            expires_at: UnixMs(1_795_615_075_000),
        },
    );
}

fn round_trip<T: Serialize + DeserializeOwned>(name: &str) {
    let read: T = serde_json::from_value(golden(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    same(name, &read);
}

fn same<T: Serialize>(name: &str, found: &T) {
    let found = serde_json::to_value(found).expect("serialises");
    let text = serde_json::to_string_pretty(&found).expect("serialises");
    assert_eq!(text, serde_json::to_string_pretty(&golden(name)).expect("serialises"), "{name}");
}

fn golden(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/wire/{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
