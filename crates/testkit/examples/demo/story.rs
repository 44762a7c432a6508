//! What the demonstration does, in order.

use std::error::Error;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{
    Attachment, Chain, Container, EchoServer, Host, Netns, Reply, Runtime, Snapshot, Uplink, tcp_echo_server,
    tcp_roundtrip,
};

use crate::drawing::{Connected, draw};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The port the web container listens on, and the host port it is published at.
const WEB_PORT: u16 = 80;
const HOST_PORT: u16 = 8080;

/// Tells the whole story with the plugins and configurations of these directories.
pub(crate) fn tell(plugins: &Path, configurations: &Path) -> Outcome {
    let started = Instant::now();
    let runtime = Runtime::with_directories([plugins]);
    let network = runtime.chain(&read(&configurations.join("demo.conflist"))?);
    let loopback = runtime.chain(&read(&configurations.join("loopback.conflist"))?);

    println!("Ferrule: what a container runtime does with a CNI plugin suite.");
    println!("This runs on a host made of namespaces; your machine's network is not touched.");
    let host = Host::new();
    let uplink = host.uplink();
    let before = Snapshot::take_anywhere();

    title("STATUS", "is the network ready for containers?");
    step("every plugin", timed(|| network.status())?.0, "ready");

    title("ADD", "two containers, one with a published port");
    let web = host.container("web");
    let client = host.container("client");
    let ports = json!([{"hostPort": HOST_PORT, "containerPort": WEB_PORT, "protocol": "tcp"}]);
    let web_attachment = Attachment::new("web", &web, "eth0").capability("portMappings", ports);
    let client_attachment = Attachment::new("client", &client, "eth0");
    let connected =
        [connect(&network, &web_attachment, "web")?, connect(&network, &client_attachment, "client")?];
    let lo_attachment = Attachment::new("web", &web, "lo");
    loopback.add(&lo_attachment)?;

    println!();
    print!("{}", picture(&connected));

    title("TRAFFIC", "real packets; each answer says who was reached, and who it thinks is asking");
    let servers = serve(&web, &uplink);
    traffic(&host, &uplink, &client, &connected)?;

    title("CHECK", "is everything still as ADD left it?");
    for (name, attachment) in [("web", &web_attachment), ("client", &client_attachment)] {
        step(name, timed(|| network.check(attachment))?.0, "as it was left");
    }

    title("GC", "the machine room fails: client is killed, and the runtime forgets what it had started");
    client.destroy();
    network.forget();
    println!("  leases   {}", leases("demo").join("  "));
    let (elapsed, ()) = timed(|| {
        network.gc(&[("web", "eth0")]).map_err(|all| {
            all.into_iter().next().map_or_else(|| Box::<dyn Error>::from("GC failed"), Into::into)
        })
    })?;
    step("keep web", elapsed, "what belonged to client is collected");
    println!("  leases   {}", leases("demo").join("  "));
    show("outside -> host:8080", ask(&uplink, Uplink::HOST_IPV4, HOST_PORT))?;

    title("DEL", "web ends");
    drop(servers);
    step(
        "web",
        timed(|| network.del(&web_attachment))?.0,
        "disconnected, without the result the runtime lost",
    );
    step("again", timed(|| network.del(&web_attachment))?.0, "nothing left to do is no error");
    loopback.del(&lo_attachment)?;
    drop(web);

    title("PROOF", "is the host as it was before?");
    as_before(&before)?;
    println!(
        "\nAll of it in {:.1} s. Next: README.md says how to install Ferrule on a node.",
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

fn read(path: &Path) -> Outcome<Value> {
    let text = fs::read_to_string(path).map_err(|e| format!("reading {}: {e}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

fn connect(network: &Chain, attachment: &Attachment, name: &'static str) -> Outcome<Connected> {
    let (elapsed, result) = timed(|| network.add(attachment))?;
    let connected = Connected { name, result };
    step(name, elapsed, &format!("eth0 {}", connected.addresses().join("  ")));
    Ok(connected)
}

fn picture(connected: &[Connected]) -> String {
    let both = |v4: Ipv4Addr, v6: Ipv6Addr| [v4.to_string(), v6.to_string()];
    let published: Vec<String> = connected[..1]
        .iter()
        .flat_map(|web| [web.address(false), web.address(true)])
        .flatten()
        .map(|address| format!("tcp {HOST_PORT} -> {}", std::net::SocketAddr::new(address, WEB_PORT)))
        .collect();
    let outside = both(Uplink::OUTSIDE_IPV4, Uplink::OUTSIDE_IPV6);
    draw(connected, &outside, &both(Uplink::HOST_IPV4, Uplink::HOST_IPV6), &published)
}

fn serve(web: &Netns, outside: &Netns) -> Vec<EchoServer> {
    [(web, WEB_PORT), (outside, WEB_PORT)]
        .into_iter()
        .map(|(netns, port)| tcp_echo_server(netns, Ipv6Addr::UNSPECIFIED, port))
        .collect()
}

fn traffic(host: &Host, outside: &Netns, client: &Container, connected: &[Connected]) -> Outcome {
    for v6 in [false, true] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let web = connected[0].address(v6).ok_or("ADD gave no address of each family")?;
        let pick =
            |v4: Ipv4Addr, v6_address: Ipv6Addr| if v6 { IpAddr::V6(v6_address) } else { IpAddr::V4(v4) };
        let published = pick(Uplink::HOST_IPV4, Uplink::HOST_IPV6);
        let beyond = pick(Uplink::OUTSIDE_IPV4, Uplink::OUTSIDE_IPV6);
        println!("  {family}");
        show("client -> web", ask(client, web, WEB_PORT))?;
        show("outside -> host:8080", ask(outside, published, HOST_PORT))?;
        show("host -> host:8080", ask(host.netns(), published, HOST_PORT))?;
        show("client -> host:8080", ask(client, published, HOST_PORT))?;
        let reply = ask(client, beyond, WEB_PORT);
        show("client -> outside", reply.map(|reply| (reply, "the host's address: masqueraded")))?;
    }
    Ok(())
}

/// Asks up to three times: a network whose IPv6 addresses are still being checked for duplicates drops the first.
fn ask(netns: &Netns, address: impl Into<IpAddr>, port: u16) -> std::io::Result<Reply> {
    let address = address.into();
    let attempt = || tcp_roundtrip(netns, address, port);
    attempt().or_else(|_| attempt()).or_else(|_| attempt())
}

/// A reply, and what is worth noticing about it.
trait Shown {
    fn parts(&self) -> (&Reply, &str);
}

impl Shown for Reply {
    fn parts(&self) -> (&Reply, &str) {
        (self, "")
    }
}

impl Shown for (Reply, &str) {
    fn parts(&self) -> (&Reply, &str) {
        (&self.0, self.1)
    }
}

fn show<T: Shown>(way: &str, reply: std::io::Result<T>) -> Outcome {
    let reply = reply.map_err(|e| format!("no answer on the way {way}: {e}"))?;
    let (reply, note) = reply.parts();
    let note = if note.is_empty() { String::new() } else { format!("  ({note})") };
    println!("    {way:22} {} answers, asked by {}{note}", reply.server, reply.seen_from.ip());
    Ok(())
}

fn leases(network: &str) -> Vec<String> {
    let files = fs::read_dir(Path::new("/var/lib/cni/networks").join(network));
    let names =
        files.into_iter().flatten().flatten().map(|file| file.file_name().to_string_lossy().into_owned());
    let mut leases: Vec<String> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
    leases.sort();
    leases
}

fn as_before(before: &Snapshot) -> Outcome {
    // The kernel takes a killed container's links down in its own time.
    let patience = Instant::now();
    loop {
        let after = Snapshot::take_anywhere().without_lease_bookkeeping();
        let difference = before.difference(&after);
        if difference.is_empty() {
            println!("  {} objects compared, no difference:", before.len());
            println!("  {}", before.names().join(", "));
            println!(
                "  (host-local remembers the last address it gave, so that the next container gets another one)"
            );
            return Ok(());
        }
        if patience.elapsed() > Duration::from_secs(3) {
            return Err(format!("something was left behind:\n{}", beginning(&difference)).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first lines of a text that can be very long.
fn beginning(text: &str) -> String {
    const LINES: usize = 30;
    let mut lines: Vec<String> = text.lines().take(LINES).map(str::to_owned).collect();
    if text.lines().count() > LINES {
        lines.push(format!("... and {} more", text.lines().count() - LINES));
    }
    lines.join("\n")
}

fn title(verb: &str, what: &str) {
    println!("\n{verb}: {what}");
}

fn step(who: &str, elapsed: Duration, what: &str) {
    println!("  {who:12} {:5.1} ms   {what}", elapsed.as_secs_f64() * 1000.0);
}

fn timed<T, E: Into<Box<dyn Error>>>(work: impl FnOnce() -> Result<T, E>) -> Outcome<(Duration, T)> {
    let started = Instant::now();
    let value = work().map_err(Into::into)?;
    Ok((started.elapsed(), value))
}
