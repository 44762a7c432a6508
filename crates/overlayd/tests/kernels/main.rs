//! Two kernels that speak VXLAN to each other over a link: what one kernel with many namespaces can not show, since its packets never leave it
//! as bytes, with checksums and a length.
//!
//! `make test-uml` starts two User Mode Linux guests and runs this on both of them at once (`tools/uml-pair`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and says what it knows"
)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Attachment, Chain, Container, Host, Runtime, eventually};

/// Bytes of a TCP stream in each direction: enough for segments that one kernel's offloads have put together.
const STREAM: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// The guest that this is, and where it meets the other.
struct Guest {
    number: usize,
    shared: PathBuf,
    host: Host,
}

impl Guest {
    /// `None` where there is no other.
    fn of_two() -> Option<Self> {
        let number = std::env::var("FERRULE_UML_NODE").ok()?.parse().unwrap();
        let shared = std::env::var_os("FERRULE_UML_SHARED")?.into();
        let host = Host::new();
        let guest = Self { number, shared, host };
        // The link is the guest's; the test has a namespace of its own.
        let pid = std::process::id();
        guest.sh(&format!("nsenter --net=/proc/1/ns/net ip link set vec0 netns {pid}"));
        guest.sh(&format!(
            "echo 0 >/proc/sys/net/ipv6/conf/vec0/accept_dad; ip link set vec0 up; \
             ip addr add 192.0.2.{number}/24 dev vec0; ip addr add 2001:db8::{number}/64 dev vec0"
        ));
        Some(guest)
    }

    fn other(&self) -> usize {
        3 - self.number
    }

    #[track_caller]
    fn sh(&self, line: &str) -> String {
        let ran = self.host.netns().run("sh", &["-c", line]);
        assert_eq!(ran.code, 0, "{line}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Tells the other something, and waits for what it has to say of the same.
    #[track_caller]
    fn exchange(&self, what: &str, said: &str) -> String {
        let of = |number: usize| self.shared.join(format!("{what}.{number}"));
        let staged = self.shared.join(format!("{what}.{}.new", self.number));
        fs::write(&staged, said).unwrap();
        fs::rename(&staged, of(self.number)).unwrap();
        let from = of(self.other());
        eventually(&format!("kernel {} to come to: {what}", self.other()), || fs::read_to_string(&from).ok())
    }
}

/// The node agent of this guest.
struct Agent(Child);

impl Agent {
    fn start(words: &str) -> Self {
        let log = File::create("/run/overlayd.log").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_overlayd"));
        command.args(words.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string("/run/overlayd.log").unwrap_or_default());
        }
    }
}

/// A container of this guest, and the other guest's.
struct Pair<'g> {
    guest: &'g Guest,
    container: Container,
    chain: Chain,
    attachment: Attachment,
    own: Vec<IpAddr>,
    far: Vec<IpAddr>,
}

impl<'g> Pair<'g> {
    fn connect(guest: &'g Guest, name: &str, list: &Value) -> Self {
        let container = guest.host.container(name);
        let attachment = Attachment::new(name, &container, "eth0");
        let chain = Runtime::new().deadline(PATIENCE).chain(list);
        let result = chain.add(&attachment).unwrap();
        let addresses = result["ips"].as_array().unwrap().iter();
        let own: Vec<String> = addresses
            .map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned())
            .collect();
        let said = guest.exchange(&format!("{name}-addresses"), &own.join(" "));
        let parse = |text: &str| text.parse().unwrap();
        let (own, far) = (own.iter().map(|text| parse(text)).collect(), said.split(' ').map(parse).collect());
        Self { guest, container, chain, attachment, own, far }
    }

    /// Echo requests of the usual size, and of the interface's whole MTU that must not be fragmented.
    fn ping(&self, hop_limit: &str) {
        let links = self.container.enter(|| testkit::ip_json("link show eth0"));
        let mtu = links[0]["mtu"].as_u64().unwrap();
        assert_eq!(mtu, 1450, "what the link leaves");
        for far in &self.far {
            let (to, payload) = (far.to_string(), mtu - if far.is_ipv4() { 28 } else { 48 });
            let once = ["-n", "-c", "1", "-W", "5", "-t", hop_limit, &to];
            let ran = self.container.run("ping", &once);
            assert_eq!(ran.code, 0, "{to}: {}{}", ran.stdout, ran.stderr);
            let whole =
                ["-n", "-c", "3", "-i", "0.2", "-W", "5", "-M", "do", "-s", &payload.to_string(), &to];
            let ran = self.container.run("ping", &whole);
            assert_eq!(ran.code, 0, "{to}, packets of {mtu} bytes: {}{}", ran.stdout, ran.stderr);
            let more = ["-n", "-c", "1", "-W", "1", "-M", "do", "-s", &(payload + 1).to_string(), &to];
            assert_ne!(self.container.run("ping", &more).code, 0, "{to}: a byte more does not fit");
        }
    }

    /// A TCP stream in both directions, and a datagram each way; the other sees the sender's own address.
    fn talk(&self, name: &str) {
        for (index, (own, far)) in self.own.iter().zip(&self.far).enumerate() {
            let here = SocketAddr::new(*own, 7000);
            let (listener, socket) =
                self.container.enter(|| (TcpListener::bind(here).unwrap(), UdpSocket::bind(here).unwrap()));
            self.guest.exchange(&format!("{name}-listening-{index}"), "");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (stream, from) = listener.accept().unwrap();
                    assert_eq!(from.ip(), *far, "the sender's own address is seen");
                    assert_eq!(receive(stream), STREAM);
                });
                let far = SocketAddr::new(*far, 7000);
                let mut stream = self.container.enter(|| TcpStream::connect_timeout(&far, PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(&vec![7; STREAM]).unwrap();
            });
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"hello", SocketAddr::new(*far, 7000)).unwrap();
            let mut datagram = [0; 64];
            let (length, from) = socket.recv_from(&mut datagram).unwrap();
            assert_eq!((&datagram[..length], from.ip()), (b"hello".as_slice(), *far));
        }
    }

    /// All of it; in the end, nothing is left.
    fn live(self, name: &str, hop_limit: &str) {
        self.ping(hop_limit);
        self.talk(name);
        self.chain.check(&self.attachment).unwrap();
        // Neither goes before the other has finished.
        self.guest.exchange(&format!("{name}-done"), "");
        self.chain.del(&self.attachment).unwrap();
    }
}

fn receive(mut stream: TcpStream) -> usize {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut total = 0;
    let mut part = vec![0; 64 << 10];
    loop {
        match stream.read(&mut part).unwrap() {
            0 => return total,
            length => total += length,
        }
    }
}

fn peers(transport: &str, blocks: impl Fn(usize) -> Value) -> Value {
    (1..=2)
        .map(|number| {
            let underlay = format!("{transport}{number}");
            json!({"node": format!("n{number}"), "underlay": underlay, "blocks": blocks(number)})
        })
        .collect()
}

fn list(keys: &Value) -> Value {
    let mut plugin = json!({"type": "vxlan"});
    plugin.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    json!({"cniVersion": "1.1.0", "name": "blue", "plugins": [plugin]})
}

#[test]
fn two_kernels_are_one_network() {
    let Some(guest) = Guest::of_two() else {
        testkit::skip!("there is one kernel here, and it takes two");
    };
    // Without an agent, packets routed, both families inside.
    let blocks = |number| json!([format!("10.40.{number}.0/24"), format!("fd00:40:{number}::/64")]);
    // The kernel of Debian's package has no nf_tables for IP, so nobody can be kept out.
    let routed = list(&json!({"vni": 100, "anySender": true, "peers": peers("192.0.2.", blocks)}));
    guest.exchange("begin", "");
    Pair::connect(&guest, "routed", &routed).live("routed", "3");
    let links = guest.sh("ip -br link show type vxlan");
    assert!(links.is_empty(), "the last container took the device along: {links}");

    // With an agent, one subnet, frames switched: nobody lowers the hop limit.
    let slices = |number| json!([format!("10.50.{number}.0/26"), format!("fd00:50::{number}:0/122")]);
    fs::write("/run/blue.json", peers("192.0.2.", slices).to_string()).unwrap();
    let agent = Agent::start(
        "--network blue --vni 200 --mode bridged --any-sender --subnet 10.50.0.0/16,fd00:50::/64 --peers-file /run/blue.json --state-dir /run/state",
    );
    eventually("the agent to be ready", || {
        fs::exists("/run/ferrule/overlay/blue.json").unwrap().then_some(())
    });
    let bridged = list(&json!({"source": "agent"}));
    Pair::connect(&guest, "bridged", &bridged).live("bridged", "1");
    drop(agent);
}
