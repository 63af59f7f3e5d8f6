//! `scripts/shard-map NEW [CURRENT]`: says what is wrong with a map of shards, before it is put into KV. Both are JSON;
//! without CURRENT there is one shard so far. Prints NEW as it is to be stored.

use std::{env, process::ExitCode, time::SystemTime};

use xora_shared::{
    shards::{BadMap, ShardMap},
    time::UnixMs,
};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [new, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: scripts/shard-map NEW [CURRENT]");
        return ExitCode::from(2);
    };
    match check(new, rest.first().map(String::as_str)) {
        #[expect(clippy::print_stdout, reason = "what is stored goes into a pipe")]
        Ok(()) => {
            println!("{new}");
            ExitCode::SUCCESS
        }
        Err(bad) => {
            eprintln!("{bad}");
            ExitCode::FAILURE
        }
    }
}

fn check(new: &str, current: Option<&str>) -> Result<(), BadMap> {
    let current = current.map_or_else(|| Ok(ShardMap::default()), ShardMap::parse)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    ShardMap::parse(new)?.follows(&current, UnixMs(i64::try_from(now).unwrap_or(i64::MAX)))
}
