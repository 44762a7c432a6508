//! The node agents, and a stream of packets that runs while things happen to them.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testkit::{FabricHost, Netns, eventually};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Where the agents' files are, seen alike on all hosts.
const FILES: &str = "/run/demo";

/// Writes the list of nodes that all agents read, in one step.
pub(crate) fn write_peers(peers: &[(&str, IpAddr, &str)]) -> Outcome {
    fs::create_dir_all(FILES)?;
    let peer = |(node, underlay, block): &(&str, IpAddr, &str)| serde_json::json!({"node": node, "underlay": underlay, "blocks": [block]});
    let list: Value = peers.iter().map(peer).collect();
    fs::write(format!("{FILES}/new"), list.to_string())?;
    Ok(fs::rename(format!("{FILES}/new"), format!("{FILES}/blue.json"))?)
}

/// `overlayd` on a host.
pub(crate) struct Agent<'f> {
    program: PathBuf,
    host: &'f FabricHost,
    child: Option<Child>,
}

impl<'f> Agent<'f> {
    pub(crate) fn start(binaries: &Path, host: &'f FabricHost) -> Outcome<Self> {
        let mut agent = Self { program: binaries.join("overlayd"), host, child: None };
        agent.again()?;
        Ok(agent)
    }

    pub(crate) fn again(&mut self) -> Outcome {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let state = format!("{FILES}/{}", self.host.name());
        let words =
            ["--network", "blue", "--vni", "100", "--peers-file", "/run/demo/blue.json", "--state-dir"];
        let child = self.host.enter(|| {
            Command::new(&self.program)
                .args(words)
                .arg(&state)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
        });
        self.child = Some(child?);
        Ok(())
    }

    fn log_file(&self) -> String {
        format!("{FILES}/{}.log", self.host.name())
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until it has so many peers.
    pub(crate) fn settled(&self, peers: usize) {
        eventually(&format!("the agent on {}:\n{}", self.host.name(), self.log()), || {
            let ran = self
                .host
                .run(&self.program.display().to_string(), &["status", "--network", "blue", "--json"]);
            let status: Value = serde_json::from_str(&ran.stdout).ok()?;
            (status["peers"].as_array()?.len() == peers && !status["own"].is_null()).then_some(())
        });
    }

    /// `overlayd WORDS` on its host.
    pub(crate) fn ask(&self, words: &[&str]) -> Outcome<String> {
        let ran = self.host.run(&self.program.display().to_string(), words);
        if ran.code == 0 { Ok(ran.stdout) } else { Err(ran.stderr.into()) }
    }

    /// Takes the network off the host, once the agent has ended.
    pub(crate) fn cleanup(&self) -> Outcome {
        let state = format!("{FILES}/{}", self.host.name());
        self.ask(&["cleanup", "--network", "blue", "--state-dir", &state]).map(|_| ())
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) -> Outcome {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What became of echo requests.
pub(crate) struct Flow {
    sent: u32,
    pub(crate) lost: u32,
    /// The longest time without an answer, in seconds.
    gap: f64,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lost {
            0 => write!(f, "{} echo requests, none lost", self.sent),
            lost => {
                write!(
                    f,
                    "{} echo requests, {lost} lost: no answer for {:.0} ms",
                    self.sent,
                    self.gap * 1000.0
                )
            }
        }
    }
}

/// Echo requests, a hundred a second.
pub(crate) struct Stream(Child);

impl Stream {
    pub(crate) fn start(from: &Netns, to: IpAddr) -> Outcome<Self> {
        let words = ["-n", "-D", "-i", "0.01", "-w", "30", &to.to_string()];
        let child = from.enter(|| Command::new("ping").args(words).stdout(Stdio::piped()).spawn())?;
        std::thread::sleep(Duration::from_millis(200));
        Ok(Self(child))
    }

    /// What became of them.
    pub(crate) fn end(mut self) -> Outcome<Flow> {
        std::thread::sleep(Duration::from_millis(200));
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT)?;
        let mut text = String::new();
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut text)?;
        }
        self.0.wait()?;
        let time = |line: &str| line.strip_prefix('[')?.split(']').next()?.parse::<f64>().ok();
        let times: Vec<f64> = text.lines().filter(|line| line.contains("time=")).filter_map(time).collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        let totals =
            text.lines().find(|line| line.contains("transmitted")).ok_or("ping has printed no totals")?;
        // 28 packets transmitted, 25 received, 10.7% packet loss, time 320ms
        let mut numbers = totals.split(',').filter_map(|part| part.split_whitespace().next()?.parse().ok());
        let (Some(sent), Some(received)) = (numbers.next(), numbers.next()) else {
            return Err(format!("ping's totals are not understood: {totals}").into());
        };
        // One that was under way when it ended is not lost.
        Ok(Flow { sent, lost: sent.saturating_sub(received + 1), gap })
    }
}
