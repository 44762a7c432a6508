//! How the agent does with many peers: how soon it is ready, what a full comparison costs, how much memory it takes.
//!
//! ```sh
//! cargo build --release -p overlayd
//! FERRULE_NAMESPACES=1 cargo run --release -p overlayd --example agent-scale -- target/release/overlayd 5000
//! ```
#![expect(clippy::print_stdout, reason = "printing a table is its purpose")]
#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Host, Uplink};

/// A node's address and block, by number from 1: `100.64.0.0/10` and `10.0.0.0/8`.
fn peer(number: u32) -> Value {
    let (high, low) = (number >> 8, number & 255);
    json!({"node": format!("n{number}"), "underlay": format!("100.64.{high}.{low}"), "blocks": [format!("10.{high}.{low}.0/24")]})
}

fn write(count: u32) {
    let own = json!({"node": "own", "underlay": Uplink::HOST_IPV4, "blocks": ["10.255.0.0/24"]});
    let nodes: Vec<Value> = std::iter::once(own).chain((1..=count).map(peer)).collect();
    fs::write("/run/peers.new", Value::from(nodes).to_string()).unwrap();
    fs::rename("/run/peers.new", "/run/peers.json").unwrap();
}

struct Agent(Child, String);

impl Agent {
    fn status(&self) -> Option<Value> {
        let output = Command::new(&self.1).args(["status", "--network", "blue", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until the kernel has so many peers.
    fn settled(&self, peers: u64) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status().unwrap_or_default();
            if status["peers"].as_array().map(|peers| peers.len() as u64) == Some(peers) {
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the agent does not come to {peers} peers");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A line of `/proc/PID/status`, in megabytes.
    fn memory(&self, key: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().unwrap_or_else(|| "target/release/overlayd".to_owned());
    let count: u32 = arguments.next().map_or(5000, |text| text.parse().unwrap());
    let host = Host::new();
    let _uplink = host.uplink();
    write(count);
    let words = "--network blue --vni 100 --peers-file /run/peers.json --state-dir /run/state --check-interval 1 --log warn";
    let began = Instant::now();
    let child = Command::new(&program).args(words.split(' ')).stdout(Stdio::null()).spawn().unwrap();
    let agent = Agent(child, program);
    let status = agent.settled(u64::from(count));
    println!("{count} peers");
    println!("ready after start           {:8.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    println!("first comparison, all made  {:8.1} ms", status["checkMs"].as_f64().unwrap());
    std::thread::sleep(Duration::from_millis(2500));
    let status = agent.settled(u64::from(count));
    println!("comparison, all there       {:8.1} ms", status["checkMs"].as_f64().unwrap());
    write(count + 1);
    let began = Instant::now();
    agent.settled(u64::from(count) + 1);
    println!("one more peer, from file    {:8.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    println!(
        "resident memory             {:8.1} MB, at most {:.1} MB",
        agent.memory("VmRSS"),
        agent.memory("VmHWM")
    );
}
