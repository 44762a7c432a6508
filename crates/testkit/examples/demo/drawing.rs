//! The topology in ASCII, drawn from the results of ADD.

use std::fmt::Write as _;

use serde_json::Value;

/// One connected container.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) name: &'static str,
    /// The final result of its ADD.
    pub(crate) result: Value,
}

impl Connected {
    /// The interfaces of the result: those of the host, or those in the container.
    fn interfaces(&self, in_container: bool) -> impl Iterator<Item = (usize, &str)> {
        let all = self.result["interfaces"].as_array().into_iter().flatten().enumerate();
        all.filter(move |(_, interface)| {
            interface["sandbox"].as_str().is_some_and(|s| !s.is_empty()) == in_container
        })
        .filter_map(|(index, interface)| Some((index, interface["name"].as_str()?)))
    }

    /// The host's end of the veth pair.
    fn host_end(&self) -> &str {
        self.interfaces(false).map(|(_, name)| name).last().unwrap_or("?")
    }

    fn bridge(&self) -> &str {
        self.interfaces(false).map(|(_, name)| name).next().unwrap_or("?")
    }

    fn ips(&self) -> impl Iterator<Item = &Value> {
        self.result["ips"].as_array().into_iter().flatten()
    }

    /// Addresses in CIDR notation.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        self.ips().filter_map(|ip| ip["address"].as_str()).collect()
    }

    /// The first address of a family, without its prefix length.
    pub(crate) fn address(&self, v6: bool) -> Option<std::net::IpAddr> {
        let bare = |cidr: &&str| cidr.split('/').next().unwrap_or_default().parse().ok();
        self.addresses().iter().filter_map(bare).find(|address: &std::net::IpAddr| address.is_ipv6() == v6)
    }

    fn gateways(&self) -> Vec<&str> {
        self.ips().filter_map(|ip| ip["gateway"].as_str()).collect()
    }

    /// A box for the container, all lines of the same width.
    fn boxed(&self) -> Vec<String> {
        let mut inside = vec![format!("container {}", self.name)];
        for (index, name) in self.interfaces(true) {
            inside.push(name.to_owned());
            let on_it = self.ips().filter(|ip| ip["interface"] == index);
            inside.extend(on_it.filter_map(|ip| Some(format!("  {}", ip["address"].as_str()?))));
        }
        boxed(&inside, 0)
    }
}

/// Draws outside, the host with its bridge and published ports, and the containers below it.
pub(crate) fn draw(
    containers: &[Connected],
    outside: &[String],
    uplink: &[String],
    published: &[String],
) -> String {
    let columns: Vec<Vec<String>> = containers.iter().map(Connected::boxed).collect();
    let width: usize = columns.iter().map(|column| column[0].len()).sum::<usize>() + 3 * (columns.len() - 1);
    let bridge = containers.first().map_or("?", Connected::bridge);
    let gateways = containers.first().map(Connected::gateways).unwrap_or_default();

    let mut host = vec![format!("host      uplink0  {}", uplink.join("  "))];
    host.extend(published.iter().map(|line| format!("          {line}")));
    host.push(format!("bridge    {bridge}  {}", gateways.join("  ")));

    let outside = format!("outside   {}", outside.join("  "));
    let width = host.iter().chain([&outside]).map(|line| line.len() + 4).fold(width, usize::max);
    let mut picture: Vec<String> = boxed(&[outside], width);
    picture.push("            |".into());
    let mut host = boxed(&host, width);
    let ends: Vec<&str> = containers.iter().map(Connected::host_end).collect();
    if let Some(edge) = host.last_mut() {
        *edge = row(&columns, &ends, '-', "+--", "--+", edge.len());
    }
    picture.extend(host);
    let stems = vec!["|"; columns.len()];
    picture.push(row(&columns, &stems, ' ', "   ", "", 0));
    for line in 0..columns.iter().map(Vec::len).max().unwrap_or(0) {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| column.get(line).cloned().unwrap_or_else(|| " ".repeat(column[0].len())))
            .collect();
        picture.push(cells.join("   "));
    }
    let mut text = String::new();
    for line in picture {
        let _ = writeln!(text, "    {}", line.trim_end());
    }
    text
}

/// A line with a label three places into each column.
fn row(columns: &[Vec<String>], labels: &[&str], fill: char, start: &str, end: &str, width: usize) -> String {
    let mut line = String::new();
    let mut column_start = 0;
    for (column, label) in columns.iter().zip(labels) {
        while line.len() < column_start + start.len() {
            line.push(if line.is_empty() && fill == '-' { '+' } else { fill });
        }
        line.push_str(label);
        column_start += column[0].len() + 3;
    }
    while line.len() + end.len() < width {
        line.push(fill);
    }
    line + end
}

fn boxed(lines: &[String], at_least: usize) -> Vec<String> {
    let width = lines.iter().map(String::len).max().unwrap_or(0).max(at_least.saturating_sub(4));
    let edge = format!("+{}+", "-".repeat(width + 2));
    let mut all = vec![edge.clone()];
    all.extend(lines.iter().map(|line| format!("| {line:width$} |")));
    all.push(edge);
    all
}
