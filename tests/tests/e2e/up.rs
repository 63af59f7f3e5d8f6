//! `make up`: what it prints and writes, and several instances side by side.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use xora_tests::{Client, Group, end_with_parent, free_port, root, state_dir, wait_for};

use crate::PATIENCE;

struct Up {
    port: u16,
    group: Group,
}

impl Up {
    /// Runs `make up`, without building, and waits until it says that it is ready.
    async fn start(nodes: u16) -> Result<Self> {
        let port = free_port()?;
        let dir = state_dir(port);
        fs::create_dir_all(&dir)?;
        let mut command = Command::new(root().join("target/debug/up"));
        command.env("PORT", port.to_string()).env("NODES", nodes.to_string());
        let mut up = Self { port, group: Group::spawn(command, &dir.join("up.log"))? };
        wait_for("make up to be ready", PATIENCE, async || {
            let said = up.said()?;
            ensure!(up.group.ended()?.is_none(), "it ended: {said}");
            Ok(said.contains("\nready").then_some(()))
        })
        .await?;
        Ok(up)
    }

    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(state_dir(self.port).join("up.log"))?)
    }

    fn file(&self) -> std::path::PathBuf {
        state_dir(self.port).join("env")
    }

    /// Interrupts it and waits until its file is gone.
    async fn stop(mut self) -> Result<()> {
        self.group.terminate()?;
        wait_for("make up to end", PATIENCE, async || self.group.ended().map_err(Into::into)).await?;
        let file = self.file();
        wait_for("its file to go", PATIENCE, async || Ok((!file.exists()).then_some(()))).await?;
        fs::remove_dir_all(state_dir(self.port)).map_err(Into::into)
    }
}

/// The variables that a program started by a shell has after the shell has read the file.
fn inherited(file: &Path) -> Result<(String, String)> {
    let program = r#"sh -c 'echo "$XORA_URL $XORA_API_KEY"'"#;
    let output = Command::new("sh").args(["-c", &format!(". '{}'; {program}", file.display())]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (url, key) = text.trim().split_once(' ').context("two variables")?;
    Ok((url.to_owned(), key.to_owned()))
}

#[tokio::test]
async fn instances_side_by_side_keep_files_of_their_own_and_a_second_node_joins_by_the_printed_command() -> Result<()> {
    end_with_parent();
    let (first, second) = tokio::try_join!(Up::start(0), Up::start(0))?;
    let shared = root().join(".dev/env");
    for up in [&first, &second] {
        let (url, key) = inherited(&up.file())?;
        assert_eq!(url, format!("http://127.0.0.1:{}", up.port));
        Client::new(&url, &key).get("/v1/settings").await?.expect(200)?;
        ensure!(up.said()?.contains(&format!("{url}/docs")));
    }

    let said = second.said()?;
    let command =
        said.split_once("XORA_EDGE=").context("the command of a node")?.1.split_once("\n\n").context("its end")?.0;
    let mut node = Command::new("sh");
    node.args(["-c", &format!("XORA_EDGE={command} --name second")]);
    let node = Group::spawn(node, &state_dir(second.port).join("second.log"))?;
    let (url, key) = inherited(&second.file())?;
    let client = Client::new(&url, &key);
    wait_for("the second node to join", PATIENCE, async || {
        let nodes = client.get("/v1/nodes").await?.expect(200)?;
        Ok(nodes["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().any(|node| node["name"] == "second"))
            .then_some(()))
    })
    .await?;
    drop(node);

    first.stop().await?;
    ensure!(second.file().exists(), "stopping one instance removed the file of another");
    ensure!(shared.exists(), "stopping one instance left `.dev/env` without an instance that runs");
    second.stop().await
}
