//! The edge, served by `wrangler dev`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::Value;

use crate::{
    client::Client,
    process::{Group, Guard, free_port},
    root, state_dir, wait_for,
};

/// How an edge is to be started.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// Where to listen. State, keys included, is kept from run to run. Without a port, a free one, and no state is kept.
    pub port: Option<u16>,
    /// Whether http and loopback addresses are permitted as inputs and webhooks.
    pub allow_loopback: bool,
    /// Further variables of the Worker.
    pub vars: Vec<(&'static str, String)>,
    /// How often a key may ask in ten seconds, if not as `wrangler.toml` says.
    pub requests: Option<u32>,
    /// How often the Queue tries to hand out what cannot be claimed, if not as `wrangler.toml` says; and then at once.
    pub tries: Option<u32>,
    /// The Worker as it is deployed, for measuring.
    pub deployed: bool,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self { port: None, allow_loopback: true, vars: Vec::new(), requests: None, tries: None, deployed: false }
    }
}

/// What the platform bills a shard for.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Rows written, index entries and alarms included.
    pub rows: u64,
    /// Messages sent to the Queue: three operations each, when nothing goes wrong.
    pub messages: u64,
}

/// A running edge. Dropping it kills it.
#[derive(Debug)]
pub struct Edge {
    /// Where it listens.
    pub url: String,
    /// The first API key, allowed everything.
    pub key: String,
    port: u16,
    dir: PathBuf,
    group: Option<Group>,
    /// After the group, which writes there.
    _scratch: Guard,
}

impl Edge {
    /// Builds the Worker if it changed, starts it and waits until it answers.
    pub async fn start(options: EdgeOptions) -> Result<Self> {
        let port = options.port.map_or_else(free_port, Ok)?;
        let dir = state_dir(port);
        if options.port.is_none() && dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        // What it bundled for whoever was here before.
        let bundled = dir.join(".wrangler");
        let _ = fs::remove_dir_all(&bundled);
        let key = write_vars(&dir, &options)?;
        write_config(&dir, &options)?;
        let bundle = dir.join("bundle");
        let kind = if options.deployed { "deploy" } else { "local" };
        tokio::task::spawn_blocking(move || build(kind, &bundle)).await??;

        let mut scratch = vec![temporary(&dir)];
        if options.port.is_none() {
            scratch.extend([dir.join("state"), dir.join("bundle"), bundled]);
        }
        let scratch = Guard::delete_dirs(&scratch)?;
        let url = format!("http://127.0.0.1:{port}");
        let mut edge = Self { url, key, port, dir, group: None, _scratch: scratch };
        edge.launch().await?;
        Ok(edge)
    }

    /// Stops everything where it stands. What reaches it from now on is not taken up before the power is cut.
    pub fn freeze(&self) -> Result<()> {
        self.group.as_ref().context("a running edge")?.freeze()
    }

    /// Kills everything at once, as a power cut would, and starts again on the same state.
    pub async fn restart(&mut self) -> Result<()> {
        self.group = None;
        self.launch().await
    }

    /// The same with another variable: what the operator changed in between.
    pub async fn restart_with(&mut self, name: &str, value: &str) -> Result<()> {
        self.group = None;
        let path = self.dir.join("vars");
        let mut vars = read_vars(&path);
        vars.insert(name.to_owned(), value.to_owned());
        store_vars(&path, &vars)?;
        self.launch().await
    }

    /// Kills everything at once, runs SQL over the record of every shard, and starts again.
    pub async fn edit(&mut self, sql: &str) -> Result<()> {
        self.group = None;
        self.over_shards(EXEC, sql)?;
        self.launch().await
    }

    /// Switches a fault of the platform that local builds can have: `kv/fails`, `kv/lags`, `kv/works`, `shard/3`,
    /// `shard/none`.
    pub async fn fault(&self, which: &str) -> Result<()> {
        self.client().get(&format!("/faults/{which}")).await?.expect(200).map(drop)
    }

    /// How many shards there are, by what the local runtime keeps on disk.
    pub fn shards(&self) -> Result<u64> {
        self.number("SELECT 1 AS n")
    }

    /// A client with the first API key.
    pub fn client(&self) -> Client {
        Client::new(&self.url, &self.key)
    }

    /// One of its variables or secrets.
    pub fn var(&self, name: &str) -> Option<String> {
        read_vars(&self.dir.join("vars")).remove(name)
    }

    /// An API key with the scope `node` for everybody who joins this edge: minted once, then kept beside its state.
    pub async fn node_token(&self) -> Result<String> {
        const NAME: &str = "NODE_TOKEN";
        let path = self.dir.join("nodes");
        let mut kept = read_vars(&path);
        if let Some(token) = kept.remove(NAME) {
            return Ok(token);
        }
        let token = self.client().mint("nodes", &["node"]).await?;
        store_vars(&path, &BTreeMap::from([(NAME.to_owned(), token.clone())]))?;
        Ok(token)
    }

    /// Where its state and logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fires the cron trigger, which `wrangler dev` never does by itself.
    pub async fn tick(&self) -> Result<()> {
        self.client().get("/cdn-cgi/local/scheduled").await?.expect(200).map(drop)
    }

    /// What the first shard has cost since it started, by the line that it logs when the cron fires.
    pub async fn spent(&self) -> Result<Spent> {
        const MARK: &str = "cost since start: ";
        let before = self.log()?.matches(MARK).count();
        self.tick().await?;
        let log = wait_for("the cost in the log", Duration::from_secs(20), async || {
            Ok(Some(self.log()?).filter(|log| log.matches(MARK).count() > before))
        });
        let log = log.await?;
        let (_, line) = log.rsplit_once(MARK).context("a cost")?;
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        Ok(Spent { rows: numbers.next().context("rows")?, messages: numbers.next().context("messages")? })
    }

    /// Where Workers that run beside it are found.
    pub(crate) fn registry(&self) -> PathBuf {
        self.dir.join("registry")
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.join("edge.log"))?).into_owned())
    }

    /// Writes the map of shards, as an operator does with `wrangler kv key put`.
    pub async fn put_shard_map(&self, map: &Value) -> Result<()> {
        let config: toml::Table = fs::read_to_string(self.dir.join("wrangler.toml"))?.parse()?;
        let namespace = config["kv_namespaces"][0]["id"].as_str().context("a namespace")?.to_owned();
        let path = format!("/cdn-cgi/local/explorer/api/storage/kv/namespaces/{namespace}/values/shard-map");
        let put = self.client().request(Method::PUT, &path).body(map.to_string()).send().await?;
        ensure!(put.status().is_success(), "{}: {}", put.status(), put.text().await?);
        Ok(())
    }

    /// How many files and parts of files there are in storage, by what the local runtime keeps on disk.
    pub fn stored(&self) -> Result<usize> {
        let blobs = self.dir.join("state/v3/r2/xora-media/blobs");
        if blobs.exists() { Ok(fs::read_dir(blobs)?.count()) } else { Ok(0) }
    }

    /// How many rows a table of the shards has in all, by what the local runtime keeps on disk.
    pub fn rows(&self, table: &str) -> Result<u64> {
        self.number(&format!("SELECT count(*) AS n FROM {table}"))
    }

    /// The sum of the number `n` that a query finds in each shard.
    pub fn number(&self, query: &str) -> Result<u64> {
        Ok(self.over_shards(SUM, query)?.trim().parse()?)
    }

    /// Runs a script over the database of every shard, and answers what it prints.
    fn over_shards(&self, script: &str, sql: &str) -> Result<String> {
        let script = format!("{EACH}{script}");
        let shards = self.dir.join("state/v3/do/xora-JobShard");
        let node = root().join("node_modules/.bin/node");
        let run = Command::new(node).args(["--no-warnings", "-e", &script]).arg(shards).arg(sql).output()?;
        ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        Ok(String::from_utf8_lossy(&run.stdout).into_owned())
    }

    /// `wrangler dev` opens ports of its own by chance, and now and then finds one taken by another that starts beside
    /// it: it is started again then.
    async fn launch(&mut self) -> Result<()> {
        const TRIES: usize = 3;
        for _ in 1..TRIES {
            match self.launch_once().await {
                Err(error) if format!("{error:#}").contains("Address already in use (socket") => self.group = None,
                other => return other,
            }
        }
        self.launch_once().await
    }

    async fn launch_once(&mut self) -> Result<()> {
        let mut command = wrangler_dev(&self.dir, self.port, &self.registry())?;
        command.arg("--persist-to").arg(self.dir.join("state")).arg("--env-file").arg(self.dir.join("vars"));
        let log = self.dir.join("edge.log");
        let group = self.group.insert(Group::spawn(command, &log)?);

        let client = Client::new(&self.url, &self.key);
        let answers = wait_for("the edge to answer /healthz", Duration::from_mins(1), async || {
            if let Some(status) = group.ended()? {
                bail!("the edge ended: {status}");
            }
            Ok(client.get("/healthz").await.ok().filter(|answer| answer.status == 200))
        });
        answers.await.map(drop).with_context(|| tail(&log))
    }
}

/// Opens the database of every shard that has a schema.
const EACH: &str = "const { DatabaseSync } = require('node:sqlite'); const fs = require('fs');
    const [dir, sql] = process.argv.slice(1);
    const names = fs.readdirSync(dir).filter((name) => name.endsWith('.sqlite') && name != 'metadata.sqlite');
    const all = names.map((name) => new DatabaseSync(dir + '/' + name));
    const shards = all.filter((db) => db.prepare(\"SELECT 1 FROM sqlite_master WHERE name = 'schema_version'\").get());";
const EXEC: &str = "for (const db of shards) db.exec(sql);";
const SUM: &str = "console.log(shards.reduce((sum, db) => sum + db.prepare(sql).get().n, 0));";

/// Where `wrangler dev` keeps what it would leave behind when it is killed. Whoever starts next in `dir` has another.
fn temporary(dir: &Path) -> PathBuf {
    dir.join(format!("tmp-{}", std::process::id()))
}

/// Serves the Worker whose `wrangler.toml` is in `dir`.
pub(crate) fn wrangler_dev(dir: &Path, port: u16, registry: &Path) -> Result<Command> {
    let (modules, temporary) = (root().join("node_modules"), temporary(dir));
    fs::create_dir_all(&temporary)?;
    let mut command = Command::new(modules.join(".bin/node"));
    command
        .arg(modules.join("wrangler/bin/wrangler.js"))
        .args(["dev", "--ip", "127.0.0.1", "--show-interactive-dev-session=false", "--config"])
        .arg(dir.join("wrangler.toml"))
        .args(["--port", &port.to_string(), "--inspector-port", &free_port()?.to_string()])
        .current_dir(dir)
        .env("TMPDIR", temporary)
        .env("CLOUDFLARE_CF_FETCH_ENABLED", "false")
        .env("WRANGLER_REGISTRY_PATH", registry)
        .env("WRANGLER_LOG_PATH", dir.join("wrangler-logs"))
        .env("WRANGLER_HIDE_BANNER", "true")
        // It keeps a trace of every call in a database of its own, which costs more than the call.
        .env("X_LOCAL_OBSERVABILITY", "false");
    Ok(command)
}

/// Builds the Worker, or finds it built, and copies it, so that a later edit cannot change what is being served.
fn build(kind: &str, bundle: &Path) -> Result<()> {
    let output = Command::new(root().join("scripts/build-edge")).arg(kind).arg(bundle).output()?;
    ensure!(output.status.success(), "scripts/build-edge failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The Worker's variables, drawn at random the first time. Answers the API key.
fn write_vars(dir: &Path, options: &EdgeOptions) -> Result<String> {
    let path = dir.join("vars");
    let mut vars = read_vars(&path);
    vars.entry("XORA_API_KEY".to_owned()).or_insert(format!("nte_{}", random_hex(24)?));
    vars.entry("SIGNING_SECRET".to_owned()).or_insert(random_hex(32)?);
    vars.entry("CREDENTIALS_SECRET".to_owned()).or_insert(random_hex(32)?);
    vars.insert("ALLOW_LOOPBACK".to_owned(), options.allow_loopback.to_string());
    vars.extend(options.vars.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    store_vars(&path, &vars)?;
    vars.remove("XORA_API_KEY").context("the key written just now")
}

fn read_vars(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

fn store_vars(path: &Path, vars: &BTreeMap<String, String>) -> Result<()> {
    let mut text = String::new();
    for (name, value) in vars {
        writeln!(text, "{name}={value}")?;
    }
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut text = String::with_capacity(2 * bytes);
    for byte in random {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

/// The deployed configuration, except that it serves the copied bundle and builds nothing.
fn write_config(dir: &Path, options: &EdgeOptions) -> Result<()> {
    let mut config: toml::Table = fs::read_to_string(root().join("wrangler.toml"))?.parse()?;
    config.remove("build");
    config.insert("main".to_owned(), "bundle/index.js".into());
    if let Some(requests) = options.requests {
        config["ratelimits"][0]["simple"]["limit"] = i64::from(requests).into();
    }
    if let Some(tries) = options.tries {
        let consumer = &mut config["queues"]["consumers"][0];
        consumer["max_retries"] = i64::from(tries).into();
        consumer["retry_delay"] = 0.into();
    }
    if let Some(assets) = config.get_mut("assets").and_then(|assets| assets.get_mut("directory")) {
        let path = root().join(assets.as_str().context("assets.directory")?);
        *assets = path.to_string_lossy().into_owned().into();
    }
    Ok(fs::write(dir.join("wrangler.toml"), config.to_string())?)
}

/// The end of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    format!("{} ends with:\n{}", log.display(), lines[lines.len().saturating_sub(20)..].join("\n"))
}
