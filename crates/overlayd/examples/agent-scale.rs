//! How the agent does with many peers: the processor time of its start, a full comparison, one node more, rest; and its memory. `make
//! bench-overlay` runs it. By hand:
//!
//! ```sh
//! tools/build-overlayd bin
//! FERRULE_NAMESPACES=1 cargo run --release -p overlayd --example agent-scale -- bin/overlayd 5000
//! ```
//!
//! Processor time is the agent's own and the kernel's on its behalf, from `/proc`, in steps of 10 ms: what a busy machine does beside does not
//! count. Nobody asks the agent anything while that is measured.
#![expect(clippy::print_stdout, reason = "printing a table is its purpose")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Host, Uplink};

const STATE: &str = "/run/ferrule/overlay/blue.json";
const ETCD: &str = "http://127.0.0.1:2379";
/// So long nothing happens.
const REST: Duration = Duration::from_secs(20);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().unwrap_or_else(|| "bin/overlayd".to_owned());
    let count: u32 = arguments.next().map_or(5000, |text| text.parse().unwrap());
    let host = Host::new();
    let _uplink = host.uplink();

    println!("{count} peers from a file");
    write_file(count);
    let own = "--peers-file /run/peers.json --state-dir /run/state/file";
    measure(&program, own, count, || write_file(count + 1));

    if !has_etcd(&program) {
        println!("\nnot measured with etcd: it is not installed, or {program} is built without");
        return;
    }
    println!("\n{count} peers from etcd");
    let _etcd = Etcd::start();
    put(1..=count);
    let own = format!(
        "--etcd {ETCD} --node own --cluster-cidr 172.16.0.0/16 --underlay-interface uplink0 --state-dir /run/state/etcd"
    );
    measure(&program, &own, count, || put(count + 1..=count + 1));
}

fn measure(program: &str, options: &str, count: u32, one_more: impl FnOnce()) {
    let agent = Agent::start(program, options);
    let ready = agent.began.elapsed();
    // What it does after it is ready: it writes everything down.
    agent.rests();
    row("ready after", ready.as_secs_f64() * 1000.0, "ms");
    row("processor time of the start", agent.processor(), "ms");
    row("resident memory", agent.memory("VmRSS"), "MB");
    let status = agent.status();
    assert_eq!(status["peers"].as_array().unwrap().len(), count as usize, "all are there");

    let (before, checks) = (agent.processor(), agent.status()["checks"].as_f64().unwrap());
    std::thread::sleep(REST);
    // The question itself, which nobody asks at rest, is not counted.
    let spent = agent.processor() - before;
    let status = agent.status();
    let checks = status["checks"].as_f64().unwrap() - checks;
    row("processor time at rest, a second", spent / REST.as_secs_f64(), "ms");
    row("a full comparison, every 5 s", spent / checks, "ms");

    let (before, changes) = (agent.processor(), status["source"]["changes"].as_u64().unwrap());
    let moment = Instant::now();
    one_more();
    let new = places(count + 1).1;
    agent.wait(|| has_route(&new));
    row("one node more: in the kernel after", moment.elapsed().as_secs_f64() * 1000.0, "ms");
    agent.rests();
    row("one node more: processor time", agent.processor() - before, "ms");
    let status = agent.status();
    println!(
        "  {:36} {:8}",
        "one node more: watch events",
        status["source"]["changes"].as_u64().unwrap() - changes
    );
    row("memory, at most", agent.memory("VmHWM"), "MB");
    drop(agent);
    let words = ["cleanup", "--network", "blue"];
    assert!(Command::new(program).args(words).stderr(Stdio::null()).status().unwrap().success());
}

fn row(what: &str, value: f64, unit: &str) {
    println!("  {what:36} {value:8.1} {unit}");
}

/// Whether the kernel has a route to this block.
fn has_route(block: &str) -> bool {
    let listed = Command::new("ip").args(["route", "show", "proto", "70", block]).output().unwrap();
    !listed.stdout.is_empty()
}

struct Agent {
    child: Child,
    program: String,
    began: Instant,
}

impl Agent {
    /// Starts one and waits until the plugin could work, which is after the kernel has everything.
    fn start(program: &str, options: &str) -> Self {
        let words = format!("--network blue --vni 100 --log warn {options}");
        let began = Instant::now();
        let child = Command::new(program).args(words.split(' ')).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { child, program: program.to_owned(), began };
        agent.wait(|| Path::new(STATE).exists());
        agent
    }

    fn wait(&self, mut happened: impl FnMut() -> bool) {
        let began = Instant::now();
        while !happened() {
            assert!(began.elapsed() < Duration::from_secs(60), "agent {}: nothing happens", self.child.id());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it has used no processor time for a while.
    fn rests(&self) {
        let mut last = -1.0;
        self.wait(|| {
            std::thread::sleep(Duration::from_millis(1200));
            std::mem::replace(&mut last, self.processor()) >= self.processor() - 10.0
        });
    }

    fn status(&self) -> Value {
        let output =
            Command::new(&self.program).args(["status", "--network", "blue", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Processor time so far, in milliseconds (`proc_pid_stat(5)`: fields 14 and 15, in ticks of 10 ms).
    fn processor(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |number: usize| fields[number - 3].parse::<f64>().unwrap();
        (ticks(14) + ticks(15)) * 10.0
    }

    /// A line of `/proc/PID/status`, in megabytes.
    fn memory(&self, key: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Address and block of a node, by number from 1: of `100.64.0.0/10` and `10.0.0.0/8`.
fn places(number: u32) -> (String, String) {
    let (high, low) = (number >> 8, number & 255);
    (format!("100.64.{high}.{low}"), format!("10.{high}.{low}.0/24"))
}

fn write_file(count: u32) {
    let own = json!({"node": "own", "underlay": Uplink::HOST_IPV4, "blocks": ["10.255.0.0/24"]});
    let node = |number| {
        let (underlay, block) = places(number);
        json!({"node": format!("n{number}"), "underlay": underlay, "blocks": [block]})
    };
    let nodes: Vec<Value> = std::iter::once(own).chain((1..=count).map(node)).collect();
    fs::write("/run/peers.new", Value::from(nodes).to_string()).unwrap();
    fs::rename("/run/peers.new", "/run/peers.json").unwrap();
}

/// Writes records of nodes into etcd, many a transaction.
fn put(numbers: impl Iterator<Item = u32>) {
    let numbers: Vec<u32> = numbers.collect();
    for part in numbers.chunks(100) {
        let mut text = "\n".to_owned();
        for number in part {
            let (underlay, block) = places(*number);
            let record = json!({"v": 1, "node": format!("n{number}"), "epoch": 1, "underlay4": underlay, "port": 4789, "vnis": [100], "blocks": [block]});
            let quoted = record.to_string().replace('"', "\\\"");
            let _ = writeln!(text, "put /ferrule/blue/nodes/n{number} \"{quoted}\"");
        }
        text += "\n\n";
        let mut child = etcdctl().arg("txn").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "etcdctl txn");
    }
}

fn etcdctl() -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", ETCD]);
    command
}

fn has_etcd(program: &str) -> bool {
    let words = ["--network", "blue", "--vni", "100", "--etcd", "nowhere"];
    let refused = Command::new(program).args(words).output().unwrap();
    testkit::have("etcd").is_some()
        && testkit::have("etcdctl").is_some()
        && String::from_utf8_lossy(&refused.stderr).contains("a URL begins with")
}

struct Etcd(Child);

impl Etcd {
    fn start() -> Self {
        let words = format!(
            "--data-dir /run/etcd --listen-client-urls {ETCD} --advertise-client-urls {ETCD} --log-level error"
        );
        let silent = || Stdio::null();
        let child =
            Command::new("etcd").args(words.split(' ')).stdout(silent()).stderr(silent()).spawn().unwrap();
        let answers =
            || etcdctl().args(["get", "x"]).stdout(silent()).stderr(silent()).status().unwrap().success();
        let began = Instant::now();
        while !answers() {
            assert!(began.elapsed() < Duration::from_secs(30), "etcd does not answer");
        }
        Self(child)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
