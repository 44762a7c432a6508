//! Agents on the hosts of a fabric, containers connected there, and probes that run while things happen.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testkit::{Attachment, Chain, Container, Fabric, FabricHost, Netns, eventually};

/// Where the agents' files are: seen alike on all hosts of a fabric.
const FILES: &str = "/run/overlayd-test";

/// A file that agents of all hosts read, replaced in one step.
pub(crate) fn write(name: &str, content: &str) -> PathBuf {
    fs::create_dir_all(FILES).unwrap();
    let path = Path::new(FILES).join(name);
    let staged = path.with_extension("new");
    fs::write(&staged, content).unwrap();
    fs::rename(&staged, &path).unwrap();
    path
}

/// The peers file of network `blue`, with these hosts: name, underlay, block.
pub(crate) fn write_peers(peers: &[(&str, IpAddr, &str)]) -> PathBuf {
    let peer = |(node, underlay, block): &(&str, IpAddr, &str)| json!({"node": node, "underlay": underlay, "blocks": [block]});
    let list: Value = peers.iter().map(peer).collect();
    write("blue.json", &list.to_string())
}

/// The usual peers: `h1` to `hN` of a fabric, with the blocks `10.40.N.0/24`.
pub(crate) fn write_hosts(hosts: &[&FabricHost]) -> PathBuf {
    let blocks: Vec<String> = hosts.iter().map(|host| block(host)).collect();
    let peers: Vec<_> = hosts
        .iter()
        .zip(&blocks)
        .map(|(host, block)| (host.name(), host.ipv4().into(), block.as_str()))
        .collect();
    write_peers(&peers)
}

pub(crate) fn block(host: &FabricHost) -> String {
    format!("10.40.{}.0/24", host.name().trim_start_matches('h'))
}

/// An agent that runs on a host.
pub(crate) struct Agent<'f> {
    pub(crate) host: &'f FabricHost,
    options: Vec<String>,
    child: Option<Child>,
    log: PathBuf,
}

impl<'f> Agent<'f> {
    /// Starts one with these options besides the usual ones.
    pub(crate) fn start(host: &'f FabricHost, options: &str) -> Self {
        let state = format!("{FILES}/{}", host.name());
        let usual = format!("--network blue --vni 100 --state-dir {state} --log debug");
        let options = usual.split(' ').chain(options.split(' ')).filter(|word| !word.is_empty());
        let log = PathBuf::from(format!("{FILES}/{}.log", host.name()));
        let mut agent = Self { host, options: options.map(str::to_owned).collect(), child: None, log };
        agent.restart();
        agent
    }

    /// Follows the usual file.
    pub(crate) fn following(host: &'f FabricHost, file: &Path) -> Self {
        Self::start(host, &format!("--peers-file {}", file.display()))
    }

    /// Starts it again after it was killed.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none());
        fs::create_dir_all(FILES).unwrap();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = self.host.enter(|| {
            Command::new(env!("CARGO_BIN_EXE_overlayd"))
                .args(&self.options)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap()
        });
        self.child = Some(child);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed()), signal).unwrap();
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it as a service manager does; it must end well.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> (Option<i32>, String) {
        let status = self.child.take().unwrap().wait().unwrap();
        (status.code(), self.log())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `overlayd status --json`, once it answers.
    pub(crate) fn status(&self) -> Value {
        eventually(&format!("the status of the agent on {}", self.host.name()), || self.try_status())
    }

    pub(crate) fn try_status(&self) -> Option<Value> {
        let ran = overlayd(self.host, "status --network blue --json");
        (ran.0 == 0).then(|| serde_json::from_str(&ran.1).unwrap())
    }

    /// Waits until it is as it should be, with so many peers.
    pub(crate) fn settled(&self, peers: usize) -> Value {
        let start = Instant::now();
        loop {
            let status = self.try_status().unwrap_or_default();
            let count = status["peers"].as_array().map_or(0, Vec::len);
            if count == peers && !status["own"].is_null() && status["trouble"].is_null() {
                return status;
            }
            assert!(
                start.elapsed() < testkit::DEADLINE,
                "{} has not come to {peers} peers: {status:#}\n{}",
                self.host.name(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How often it has repaired something.
    pub(crate) fn repairs(&self) -> u64 {
        self.status()["drift"]["repairs"].as_u64().unwrap()
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the agent on {}\n{}", self.host.name(), self.log());
        }
    }
}

/// Agents of a bridged network, one on each host, that know each other.
pub(crate) fn bridged<'f>(hosts: &[&'f FabricHost], more: &str) -> Vec<Agent<'f>> {
    let blocks: Vec<String> = (1..=hosts.len()).map(|number| format!("10.50.{number}.0/26")).collect();
    let peers: Vec<_> = hosts
        .iter()
        .zip(&blocks)
        .map(|(host, block)| (host.name(), host.ipv4().into(), block.as_str()))
        .collect();
    let file = write_peers(&peers);
    let options = format!("--peers-file {} --mode bridged --subnet 10.50.0.0/16 {more}", file.display());
    let agents: Vec<Agent<'_>> = hosts.iter().map(|host| Agent::start(host, &options)).collect();
    for agent in &agents {
        agent.settled(hosts.len() - 1);
    }
    agents
}

/// Runs `overlayd` with these words on a host: exit code, standard output, standard error.
pub(crate) fn overlayd(host: &Netns, words: &str) -> (i32, String, String) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let ran = host.run(env!("CARGO_BIN_EXE_overlayd"), &words);
    (ran.code, ran.stdout, ran.stderr)
}

/// A container on a host, in the agent's network.
pub(crate) struct Connected {
    pub(crate) container: Container,
    attachment: Attachment,
    chain: Chain,
    /// The first of its addresses.
    pub(crate) address: IpAddr,
    pub(crate) addresses: Vec<IpAddr>,
    interfaces: Value,
}

impl Connected {
    pub(crate) fn add(fabric: &Fabric, host: &FabricHost, name: &str) -> Self {
        let list =
            json!({"cniVersion": "1.1.0", "name": "blue", "plugins": [{"type": "vxlan", "source": "agent"}]});
        let container = fabric.container(name);
        let attachment = Attachment::new(name, &container, "eth0");
        let chain = host.runtime().chain(&list);
        let result = chain.add(&attachment).unwrap();
        let address =
            |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
        let addresses: Vec<IpAddr> = result["ips"].as_array().unwrap().iter().map(address).collect();
        let interfaces = result["interfaces"].clone();
        Self { container, attachment, chain, address: addresses[0], addresses, interfaces }
    }

    /// Name and hardware address of an interface of it, as its ADD told: its own is the last, before it comes its link on the host.
    pub(crate) fn interface(&self, from_behind: usize) -> [String; 2] {
        let interfaces = self.interfaces.as_array().unwrap();
        let interface = &interfaces[interfaces.len() - from_behind];
        ["name", "mac"].map(|key| interface[key].as_str().unwrap().to_owned())
    }

    /// CHECK.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.chain.check(&self.attachment).map_err(|failure| failure.to_string())
    }

    /// Disconnects it.
    pub(crate) fn del(&self) {
        self.chain.del(&self.attachment).unwrap();
    }

    /// One on each of two hosts, `c1` and `c2`, that reach each other.
    pub(crate) fn pair(fabric: &Fabric, first: &FabricHost, second: &FabricHost) -> [Self; 2] {
        let pair = [(first, "c1"), (second, "c2")].map(|(host, name)| Self::add(fabric, host, name));
        pair[0].until_reached(pair[1].address, Instant::now());
        pair
    }

    /// Whether one packet is answered within this time.
    pub(crate) fn reaches(&self, other: IpAddr, within: Duration) -> bool {
        let wait = format!("{:.2}", within.as_secs_f64());
        self.container.run("ping", &["-n", "-q", "-c", "1", "-W", &wait, &other.to_string()]).code == 0
    }

    /// How long it takes until packets are answered.
    pub(crate) fn until_reached(&self, other: IpAddr, since: Instant) -> Duration {
        while !self.reaches(other, Duration::from_millis(20)) {
            assert!(since.elapsed() < testkit::DEADLINE, "{} does not reach {other}", self.container.name());
        }
        since.elapsed()
    }
}

/// Echo requests, a hundred a second, while something happens.
pub(crate) struct Probe {
    child: Child,
}

/// How many are sent in a second by a machine with nothing else to do; a busy one sends fewer. Whatever takes less than a second loses fewer.
pub(crate) const A_SECOND: u32 = 100;

/// What became of them.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) sent: u32,
    pub(crate) lost: u32,
    /// The longest time without an answer.
    pub(crate) gap: Duration,
}

impl Flow {
    /// Fails if as many were lost as a whole second has: what usually takes some ten milliseconds has a hundred times that.
    #[track_caller]
    pub(crate) fn assert_brief(&self, what: &str) {
        assert!(self.lost < A_SECOND, "{what}: a gap of a second or more: {self:?}");
    }

    /// Fails if as many were answered as a whole second has, and those before it: what is to go is gone soon.
    #[track_caller]
    pub(crate) fn assert_ends_soon(&self, what: &str) {
        let before = 2 * A_SECOND / 10;
        assert!(
            self.sent - self.lost < A_SECOND + before,
            "{what}: still answered after a second or more: {self:?}"
        );
    }
}

impl Probe {
    pub(crate) fn start(from: &Connected, to: IpAddr) -> Self {
        let child = from.container.enter(|| {
            Command::new("ping")
                .args(["-n", "-D", "-i", "0.01", "-w", "60", &to.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        std::thread::sleep(Duration::from_millis(100));
        Self { child }
    }

    pub(crate) fn end(mut self) -> Flow {
        std::thread::sleep(Duration::from_millis(100));
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.child.wait().unwrap();
        // [1700000000.123456] 64 bytes from 10.40.2.2: icmp_seq=1 ttl=62 time=0.1 ms
        let times: Vec<f64> = text
            .lines()
            .filter(|line| line.contains("icmp_seq=") && line.contains("time="))
            .filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse().ok())
            .collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        let totals = text
            .lines()
            .find(|line| line.contains("packets transmitted"))
            .unwrap_or_else(|| panic!("{text}"));
        let number = |word: &str| -> u32 {
            let words: Vec<&str> = totals.split([' ', ',']).filter(|word| !word.is_empty()).collect();
            let at = words.iter().position(|other| *other == word).unwrap();
            words[at - 1].parse().unwrap()
        };
        let (sent, received) = (number("packets"), number("received"));
        // What was under way when it ended is not lost.
        let lost = (sent - received).saturating_sub(1);
        Flow { sent, lost, gap: Duration::from_secs_f64(gap) }
    }
}

/// Runs a line of a shell on a host, which must succeed.
#[track_caller]
pub(crate) fn sh(host: &Netns, line: &str) -> String {
    // The system's tools first: `bridge` is the name of a CNI plugin, too.
    let line = format!("PATH=/usr/sbin:/sbin:/usr/bin:/bin:$PATH; {line}");
    let ran = host.run("sh", &["-c", &line]);
    assert_eq!(ran.code, 0, "{line}: {}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// Everything of the overlay that a host's kernel has, in words.
pub(crate) fn kernel(host: &Netns) -> String {
    sh(
        host,
        "ip route show proto 70; ip -6 route show proto 70; ip nexthop show; ip neigh show dev vx-blue nud permanent; bridge fdb show dev vx-blue; nft list ruleset",
    )
}

/// The same as far as it follows from the nodes: numbers of nexthops and the order of entries may be others another time, what they say may not.
pub(crate) fn entries(host: &Netns) -> Vec<String> {
    let mut lines: Vec<String> = kernel(host).lines().map(without_numbers).collect();
    lines.sort();
    lines
}

/// A line without numbers that the kernel or the agent makes up anew.
fn without_numbers(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut kept = Vec::new();
    let mut skip = false;
    for word in words {
        if !skip && word.parse::<u64>().is_err() {
            kept.push(word);
        }
        skip = matches!(word, "id" | "nhid" | "packets" | "bytes");
    }
    kept.join(" ")
}
