//! The status object of the agent's fifogate (docs/operations.md#status).

use std::{io, path::Path, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncReadExt, net::UnixStream, time::timeout};

/// Name of the socket in the run directory.
const SOCKET: &str = "status.sock";
/// Longest wait for the answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most bytes of an answer.
const MOST: u64 = 64 << 20;

/// Asks for it; `None` if there is no answer in time.
pub(super) async fn ask(run_dir: &Path) -> Option<Value> {
    let answer = async {
        let stream = UnixStream::connect(run_dir.join(SOCKET)).await?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    serde_json::from_slice(&timeout(PATIENCE, answer).await.ok()?.ok()?).ok()
}
