//! The agent's sockets: a Unix socket for `overlayd status`, and a port for Prometheus where one is asked for. Both speak as much HTTP as
//! `curl` and Prometheus need.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni::NetworkName;
use ferrule_core::state::open_private;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::error::Error;
use crate::status::Status;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request that is read.
const LONGEST: u64 = 8 * 1024;

/// A question to the agent.
pub(crate) type Question = oneshot::Sender<Box<Status>>;

/// Where the files of running agents are.
pub(crate) fn directory() -> PathBuf {
    Path::new(ferrule_core::state::ROOT).join("overlay")
}

/// The socket of a network's agent.
pub fn socket(network: &NetworkName) -> PathBuf {
    directory().join(format!("{network}.sock"))
}

/// What makes this the only agent of its network on this host, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: File,
    path: PathBuf,
    socket: PathBuf,
}

impl Claim {
    /// Becomes the network's agent on this host, or says who is.
    pub(crate) fn take(network: &NetworkName) -> Result<Self, Error> {
        let path = directory().join(format!("{network}.agent"));
        let lock = open_private(&path).map_err(ferrule_overlay::Error::from)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock, path, socket: socket(network) }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Running { network: network.to_string(), path: socket(network) })
            }
            Err(TryLockError::Error(source)) => Err(Error::File { operation: "lock", path, source }),
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn forget(self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Begins to answer on the Unix socket.
    pub(crate) fn listen(&self, questions: mpsc::Sender<Question>) -> Result<(), Error> {
        let failed = |operation| {
            let path = self.socket.clone();
            move |source| Error::File { operation, path, source }
        };
        // Of an agent that was killed; nobody else holds the lock.
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&self.socket).map_err(failed("listen on"))?;
        fs::set_permissions(&self.socket, fs::Permissions::from_mode(0o600))
            .map_err(failed("restrict access to"))?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, questions.clone()));
            }
        });
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// Begins to answer on a TCP port.
pub(crate) async fn listen_tcp(address: SocketAddr, questions: mpsc::Sender<Question>) -> Result<(), Error> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(Error::system(format!("listen on {address} for Prometheus (--metrics)")))?;
    tokio::spawn(async move {
        loop {
            // Out of descriptors, say: a while later there may be some.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            tokio::spawn(serve(stream, questions.clone()));
        }
    });
    Ok(())
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, questions: mpsc::Sender<Question>) {
    match tokio::time::timeout(PATIENCE, answer(stream, questions)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a client went away"),
        Err(_) => debug!("a client took too long"),
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    questions: mpsc::Sender<Question>,
) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = reader.take(LONGEST);
    let mut request = Vec::new();
    let mut part = [0; 1024];
    // The headers end with an empty line; there is nothing in them that matters here.
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match reader.read(&mut part).await? {
            0 => break,
            length => request.extend_from_slice(part.get(..length).unwrap_or_default()),
        }
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (code, kind, body) = match (method, path) {
        ("GET", "/status" | "/metrics" | "/healthz") => match ask(&questions).await {
            None => ("503 Service Unavailable", "text/plain", "the agent is ending\n".to_owned()),
            Some(status) => respond(path, &status),
        },
        ("GET", _) => {
            ("404 Not Found", "text/plain", "there are /status, /metrics and /healthz\n".to_owned())
        }
        _ => ("405 Method Not Allowed", "text/plain", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    writer.write_all(head.as_bytes()).await?;
    writer.write_all(body.as_bytes()).await?;
    writer.shutdown().await
}

fn respond(path: &str, status: &Status) -> (&'static str, &'static str, String) {
    match path {
        "/metrics" => ("200 OK", "text/plain; version=0.0.4", status.metrics()),
        "/healthz" => match &status.trouble {
            None if status.own.is_some() => ("200 OK", "text/plain", "ok\n".to_owned()),
            None => ("503 Service Unavailable", "text/plain", "this node has no block yet\n".to_owned()),
            Some(trouble) => ("503 Service Unavailable", "text/plain", format!("{trouble}\n")),
        },
        _ => ("200 OK", "application/json", serde_json::to_string(status).unwrap_or_default() + "\n"),
    }
}

async fn ask(questions: &mpsc::Sender<Question>) -> Option<Box<Status>> {
    let (sender, receiver) = oneshot::channel();
    questions.send(sender).await.ok()?;
    receiver.await.ok()
}

/// Asks a running agent how it is.
pub fn query(network: &NetworkName) -> Result<Status, Error> {
    let path = socket(network);
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: overlayd\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|source| Error::NotRunning {
        network: network.to_string(),
        path: path.clone(),
        source,
    })?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").and_then(|at| answer.get(at + 4..));
    let status = serde_json::from_slice(body.unwrap_or_default());
    status.map_err(|error| Error::Answer { path, reason: error.to_string() })
}

/// The networks that agents of this host work for.
pub fn running() -> Vec<NetworkName> {
    let entries = fs::read_dir(directory()).into_iter().flatten().filter_map(Result::ok);
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        NetworkName::new(name.strip_suffix(".sock")?).ok()
    };
    let mut networks: Vec<NetworkName> = entries.filter_map(name).collect();
    networks.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    networks
}
