//! What the agent says of itself: as data, as a table for people, as metrics.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cni::{Cidr, LinkName, NetworkName};
use ferrule_overlay::{Mode, NodeId, Port, Vni};
use serde::{Deserialize, Serialize};

/// A moment, in seconds since 1970 with fractions.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(f64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
    }

    /// How long it was before another; nothing if it was not.
    pub fn before(self, other: Self) -> Duration {
        Duration::try_from_secs_f64((other.0 - self.0).max(0.0)).unwrap_or_default()
    }
}

/// How the source of nodes is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// What it is.
    pub name: String,
    /// Whether what it has told is the present.
    pub current: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is so.
    pub since: Moment,
    /// Complete lists received.
    pub lists: u64,
    /// Single changes received.
    pub changes: u64,
}

/// What was put right that nobody had asked to be changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// How often something was found.
    pub repairs: u64,
    /// How many objects that were, the device and the firewall table each counted as one.
    pub objects: u64,
    /// What was found last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// When.
    pub at: Moment,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Its name.
    pub node: NodeId,
    /// Where it is reached.
    pub underlay: Vec<IpAddr>,
    /// Its blocks.
    pub blocks: Vec<Cidr>,
    /// When its record came or changed, as seen here.
    pub changed: Moment,
}

/// This node's part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnStatus {
    /// Its name.
    pub node: NodeId,
    /// Where its tunnels begin.
    pub underlay: IpAddr,
    /// The link that has the address.
    pub interface: LinkName,
    /// Its blocks.
    pub blocks: Vec<Cidr>,
    /// MTU inside in bytes.
    pub mtu: u32,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The network.
    pub network: NetworkName,
    /// Its identifier.
    pub vni: Vni,
    /// Its port.
    pub port: Port,
    /// Routed or bridged.
    pub mode: Mode,
    /// The device.
    pub device: LinkName,
    /// The agent's process.
    pub pid: u32,
    /// When it was started.
    pub started: Moment,
    /// This node; nothing until it has a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnStatus>,
    /// Where the nodes are known from.
    pub source: SourceStatus,
    /// Whether the kernel is as it should be, and if not, why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Entries of peers that are gone from the list, kept until a second list confirms it.
    pub withheld: u64,
    /// Full comparisons with the kernel.
    pub checks: u64,
    /// How long the last one took, in milliseconds.
    pub check_ms: f64,
    /// What was put right.
    pub drift: Drift,
    /// Records that were refused, and why.
    pub refused: Vec<String>,
    /// The others.
    pub peers: Vec<PeerStatus>,
}

impl Status {
    /// For a person.
    pub fn table(&self) -> String {
        let now = Moment::now();
        let ago = |moment: Moment| format!("{} ago", duration(moment.before(now)));
        let mut text = String::new();
        let mode = match self.mode {
            Mode::Routed => "routed",
            Mode::Bridged => "bridged",
        };
        let _ = writeln!(
            text,
            "network   {}  VNI {}, UDP port {}, {mode}, device {}",
            self.network, self.vni, self.port, self.device
        );
        let _ = writeln!(text, "state     {}", self.state());
        let own = self.own.as_ref().map_or_else(
            || "not part of the network yet".to_owned(),
            |own| {
                let blocks = joined(&own.blocks);
                format!("{}  {blocks} at {} on {}, MTU {}", own.node, own.underlay, own.interface, own.mtu)
            },
        );
        let _ = writeln!(text, "node      {own}");
        let source = match &self.source.reason {
            None if self.source.current => "current".to_owned(),
            None => "nothing heard yet".to_owned(),
            Some(reason) => format!("out of date: {reason}"),
        };
        let _ = writeln!(
            text,
            "source    {}  {source}, for {}",
            self.source.name,
            duration(self.source.since.before(now))
        );
        let drift = match &self.drift.last {
            None => "none".to_owned(),
            Some(last) => {
                let times =
                    if self.drift.repairs == 1 { "once" } else { &format!("{} times", self.drift.repairs) };
                format!("repaired {times}, last {}: {last}", ago(self.drift.at))
            }
        };
        let _ = writeln!(text, "drift     {drift}");
        let _ = writeln!(
            text,
            "compared  {} times with the kernel, last in {:.1} ms",
            self.checks, self.check_ms
        );
        if self.withheld > 0 {
            let _ = writeln!(text, "withheld  {} removals, until a second list confirms them", self.withheld);
        }
        for refused in &self.refused {
            let _ = writeln!(text, "refused   {refused}");
        }
        let _ = writeln!(text, "agent     pid {}, started {}", self.pid, ago(self.started));
        text.push('\n');
        let header = ["PEER", "UNDERLAY", "BLOCKS", "CHANGED"].map(str::to_owned);
        let rows = self.peers.iter().map(|peer| {
            [peer.node.to_string(), joined(&peer.underlay), joined(&peer.blocks), ago(peer.changed)]
        });
        if self.peers.is_empty() {
            text += "no peers\n";
            return text;
        }
        columns(&mut text, &std::iter::once(header).chain(rows).collect::<Vec<_>>());
        text
    }

    /// How it is, in a few words.
    fn state(&self) -> String {
        match (&self.trouble, &self.own) {
            (Some(trouble), _) => format!("trouble: {trouble}"),
            (None, None) => "waiting for its part in the network".to_owned(),
            (None, Some(_)) if !self.source.current => "works with what was heard last".to_owned(),
            (None, Some(_)) => "works".to_owned(),
        }
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        let network = [("network", self.network.as_str())];
        let truth = |yes: bool| f64::from(u8::from(yes));
        let mut metrics = Metrics::default();
        #[expect(clippy::cast_precision_loss, reason = "counters stay far below 2^53")]
        let rows: [(&str, &str, &str, f64); 11] = [
            ("peers", "gauge", "Peers in the view of this node.", self.peers.len() as f64),
            (
                "ready",
                "gauge",
                "1 if this node has a block and its kernel is as it should be.",
                truth(self.own.is_some() && self.trouble.is_none()),
            ),
            (
                "source_current",
                "gauge",
                "1 if what the source has told is the present.",
                truth(self.source.current),
            ),
            ("source_lists_total", "counter", "Complete lists of nodes received.", self.source.lists as f64),
            (
                "source_changes_total",
                "counter",
                "Single changes of nodes received.",
                self.source.changes as f64,
            ),
            (
                "records_refused",
                "gauge",
                "Records of nodes that are not used because of what is in them.",
                self.refused.len() as f64,
            ),
            (
                "removals_withheld",
                "gauge",
                "Entries kept until a second list confirms that they are to go.",
                self.withheld as f64,
            ),
            ("checks_total", "counter", "Full comparisons with the kernel.", self.checks as f64),
            ("check_seconds", "gauge", "Duration of the last full comparison.", self.check_ms / 1000.0),
            (
                "drift_repairs_total",
                "counter",
                "How often something was put right that somebody had altered.",
                self.drift.repairs as f64,
            ),
            ("drift_objects_total", "counter", "How many objects that were.", self.drift.objects as f64),
        ];
        for (name, kind, help, value) in rows {
            metrics.add(name, kind, help, &network, value);
        }
        metrics.add("start_time_seconds", "gauge", "When the agent was started.", &network, self.started.0);
        let node = self.own.as_ref().map(|own| own.node.to_string()).unwrap_or_default();
        let (vni, underlay) = (self.vni.to_string(), self.own.as_ref().map(|own| own.underlay.to_string()));
        let underlay = underlay.unwrap_or_default();
        let labels =
            [network[0], ("node", node.as_str()), ("vni", vni.as_str()), ("underlay", underlay.as_str())];
        metrics.add("info", "gauge", "This node.", &labels, 1.0);
        metrics.0
    }
}

#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn add(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        // Names of networks and nodes have no character that would have to be escaped.
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let labels = labels.join(",");
        let _ = writeln!(self.0, "# HELP ferrule_overlay_{name} {help}");
        let _ = writeln!(self.0, "# TYPE ferrule_overlay_{name} {kind}");
        let _ = writeln!(self.0, "ferrule_overlay_{name}{{{labels}}} {value}");
    }
}

/// Several things in a line.
pub(crate) fn joined<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

fn columns<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let value = serde_json::json!({
            "network": "blue", "vni": 100, "port": 4789, "mode": "routed", "device": "vx-blue", "pid": 7, "started": 0.0,
            "own": {"node": "a", "underlay": "192.0.2.1", "interface": "eth0", "blocks": ["10.40.1.0/24"], "mtu": 1450},
            "source": {"name": "file /etc/blue.json", "current": true, "since": 0.0, "lists": 1, "changes": 0},
            "withheld": 0, "checks": 3, "checkMs": 1.5, "drift": {"repairs": 2, "objects": 3, "last": "route 10.40.2.0/24", "at": 0.0},
            "refused": [],
            "peers": [{"node": "bravo", "underlay": ["192.0.2.2"], "blocks": ["10.40.2.0/24"], "changed": 0.0}],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_peer_is_a_line_below_its_headings() {
        let table = status().table();
        let lines: Vec<&str> = table.lines().collect();
        let header = lines.iter().position(|line| line.starts_with("PEER")).unwrap();
        let (heading, row) = (lines[header], lines[header + 1]);
        for (word, value) in [("PEER", "bravo"), ("UNDERLAY", "192.0.2.2"), ("BLOCKS", "10.40.2.0/24")] {
            assert_eq!(heading.find(word), row.find(value), "{table}");
        }
        assert!(table.contains("repaired 2 times, last "), "{table}");
    }

    #[test]
    fn a_metric_has_help_type_and_the_network() {
        let metrics = status().metrics();
        assert!(
            metrics
                .contains("# TYPE ferrule_overlay_peers gauge\nferrule_overlay_peers{network=\"blue\"} 1\n")
        );
        assert!(metrics.contains("ferrule_overlay_check_seconds{network=\"blue\"} 0.0015\n"));
        assert!(metrics.lines().all(|line| line.starts_with('#') || line.starts_with("ferrule_overlay_")));
    }
}
