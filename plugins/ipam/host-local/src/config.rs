//! The network configuration, from JSON to validated range sets.

use std::mem::take;
use std::net::IpAddr;
use std::path::PathBuf;

use cni::address::parse_ip_maybe_prefix;
use cni::json::{self, JsonError};
use cni::{AddressError, Cidr, Failure, Request, Route, SpecVersion};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::range::{Range, RangeProblem, RangeSet, Span};

/// Where leases are kept unless `dataDir` says otherwise.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// What ADD, CHECK and STATUS need of the configuration.
#[derive(Debug)]
pub(crate) struct Config {
    /// One address is allocated from each; the index names its `last_reserved_ip` file.
    pub(crate) sets: Vec<RangeSet>,
    /// Exclusions that hold for every set.
    pub(crate) exclude: Vec<Span>,
    pub(crate) routes: Vec<Route>,
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Addresses asked for, in order, each once.
    pub(crate) requested: Vec<IpAddr>,
}

/// The store's directory of a request, read without looking at anything else: DEL and GC must work however broken the rest is.
pub(crate) fn data_dir(request: &Request) -> Result<PathBuf> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Ipam {
        data_dir: String,
    }
    let ipam: Ipam = match json::get(request.config().object(), "ipam") {
        Some(value) => {
            json::decode(value).map_err(|problem| Error::Undecodable { problem: problem.under("ipam") })?
        }
        None => Ipam::default(),
    };
    let text = if ipam.data_dir.is_empty() { DEFAULT_DATA_DIR } else { &ipam.data_dir };
    Ok(PathBuf::from(text))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Net {
    ipam: Option<Ipam>,
    runtime_config: RuntimeConfig,
    args: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ipam {
    ranges: Vec<Option<Vec<RawRange>>>,
    subnet: String,
    range_start: String,
    range_end: String,
    gateway: String,
    exclude: Vec<String>,
    resolv_conf: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    ips: Vec<String>,
    ip_ranges: Vec<Value>,
}

/// A range as written. An empty text is an absent one: Go's `net.IP` reads it so, and go-cni always sends all four keys.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRange {
    subnet: String,
    range_start: String,
    range_end: String,
    gateway: String,
    exclude: Vec<String>,
}

/// A range and where it is written.
struct Written {
    path: String,
    range: RawRange,
}

/// A set as written.
struct WrittenSet {
    path: String,
    ranges: Vec<Written>,
}

impl Config {
    pub(crate) fn read(request: &Request) -> std::result::Result<Self, Failure> {
        let net: Net = json::decode_object(request.config().object())
            .map_err(|problem| Error::Undecodable { problem })?;
        let requested = requested(request, &net)?;
        let mut ipam = net.ipam.ok_or(Error::MissingIpam)?;
        let written = written_sets(&mut ipam, &net.runtime_config)?;
        let exclude = exclusions(&ipam.exclude, "ipam.exclude")?;
        let sets = range_sets(&written, &exclude)?;
        one_per_family(&sets, request.config().version())?;
        disjoint(&sets, &written)?;
        let resolv_conf = (!ipam.resolv_conf.is_empty()).then(|| PathBuf::from(&ipam.resolv_conf));
        Ok(Self { sets, exclude, routes: routes(request)?, resolv_conf, requested })
    }
}

/// Requested addresses accumulate: `IP` of `CNI_ARGS`, then `args.cni.ips`, then the capability `ips`.
fn requested(request: &Request, net: &Net) -> std::result::Result<Vec<IpAddr>, Failure> {
    let mut texts: Vec<(String, String)> = Vec::new();
    let args = request.args()?;
    args.allow_only(&["IP"])?;
    // The conventions make `args` optional metadata: what has another shape is not understood, which is no error.
    if let Some(Value::Array(ips)) = member(&net.args, "cni").and_then(|cni| member(cni, "ips")) {
        let ips = ips.iter().enumerate().filter_map(|(index, ip)| ip.as_str().map(|text| (index, text)));
        texts.extend(ips.map(|(index, text)| (format!("args.cni.ips[{index}]"), text.to_owned())));
    }
    // They also say that `CNI_ARGS` does not count where `args` ask for the same. The Go suite takes both.
    if texts.is_empty()
        && let Some(text) = args.get("IP").filter(|text| !text.is_empty())
    {
        texts.push(("CNI_ARGS: IP".to_owned(), text.to_owned()));
    }
    let ips = net.runtime_config.ips.iter().enumerate();
    texts.extend(ips.map(|(index, text)| (format!("runtimeConfig.ips[{index}]"), text.clone())));

    let mut addresses = Vec::new();
    for (path, text) in texts {
        let (address, _) =
            parse_ip_maybe_prefix(&text).map_err(|problem| Error::Address { path, problem })?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn member<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_object().and_then(|object| json::get(object, key))
}

/// The capability's sets first, then the range of old (`subnet` beside `type`), then `ranges`.
fn written_sets(ipam: &mut Ipam, runtime: &RuntimeConfig) -> Result<Vec<WrittenSet>> {
    let mut sets = runtime_sets(&runtime.ip_ranges)?;
    if !ipam.subnet.is_empty() {
        let range = RawRange {
            subnet: take(&mut ipam.subnet),
            range_start: take(&mut ipam.range_start),
            range_end: take(&mut ipam.range_end),
            gateway: take(&mut ipam.gateway),
            exclude: Vec::new(),
        };
        sets.push(WrittenSet {
            path: "ipam".to_owned(),
            ranges: vec![Written { path: "ipam".to_owned(), range }],
        });
    }
    for (index, ranges) in take(&mut ipam.ranges).into_iter().enumerate() {
        sets.push(written_set(format!("ipam.ranges[{index}]"), ranges.unwrap_or_default()));
    }
    Ok(sets)
}

fn written_set(path: String, ranges: Vec<RawRange>) -> WrittenSet {
    let ranges = ranges
        .into_iter()
        .enumerate()
        .map(|(index, range)| Written { path: format!("{path}[{index}]"), range })
        .collect();
    WrittenSet { path, ranges }
}

/// The capability `ipRanges`: a list of sets, as the conventions say; or a flat list of ranges, as go-cni (containerd, nerdctl) sends it.
/// A flat list is one pool a family: a container gets one address of each.
fn runtime_sets(values: &[Value]) -> Result<Vec<WrittenSet>> {
    const PATH: &str = "runtimeConfig.ipRanges";
    let wrong = |problem: JsonError, index: usize| Error::Undecodable {
        problem: problem.under(format!("[{index}]")).under("ipRanges").under("runtimeConfig"),
    };
    let mut sets = Vec::new();
    let mut flat: [Option<WrittenSet>; 2] = [None, None];
    for (index, value) in values.iter().enumerate() {
        let path = format!("{PATH}[{index}]");
        if value.is_object() {
            let range: RawRange = json::decode(value).map_err(|problem| wrong(problem, index))?;
            let family = usize::from(range.subnet.contains(':'));
            if let Some(pool) = flat.get_mut(family) {
                pool.get_or_insert_with(|| WrittenSet { path: PATH.to_owned(), ranges: Vec::new() })
                    .ranges
                    .push(Written { path, range });
            }
        } else {
            let ranges: Option<Vec<RawRange>> =
                json::decode(value).map_err(|problem| wrong(problem, index))?;
            sets.push(written_set(path, ranges.unwrap_or_default()));
        }
    }
    sets.extend(flat.into_iter().flatten());
    Ok(sets)
}

fn range_sets(written: &[WrittenSet], exclude: &[Span]) -> Result<Vec<RangeSet>> {
    if written.is_empty() {
        return Err(Error::NoRanges);
    }
    let mut pools = Vec::new();
    for (set, pool) in written.iter().enumerate() {
        let ranges = pool.ranges.iter().map(|written| range(set, written)).collect::<Result<Vec<_>>>()?;
        pools.push(ranges);
    }
    // No range hands out the gateway of another: two ranges may share a subnet.
    let gateways = pools.iter().flatten().filter_map(|range| range.gateway).map(Span::single);
    let reserved: Vec<Span> = gateways.chain(exclude.iter().copied()).collect();

    let mut sets: Vec<RangeSet> = Vec::new();
    for (index, (ranges, WrittenSet { path, ranges: written })) in pools.into_iter().zip(written).enumerate()
    {
        let set = RangeSet::new(ranges, &reserved).map_err(|problem| {
            let ranges = written.iter().filter_map(|written| range(index, written).ok());
            let value = ranges.map(|range| range.to_string()).collect::<Vec<_>>().join(",");
            Error::InvalidRange { set: index, problem, path: path.clone(), value: format!("[{value}]") }
        })?;
        sets.push(set);
    }
    Ok(sets)
}

fn disjoint(sets: &[RangeSet], written: &[WrittenSet]) -> Result<()> {
    let path = |index: usize| written.get(index).map(|set| set.path.clone()).unwrap_or_default();
    for (first, set) in sets.iter().enumerate() {
        for (second, other) in sets.iter().enumerate().skip(first + 1) {
            if set.overlaps(other) {
                return Err(Error::SetsOverlap {
                    first,
                    second,
                    first_path: path(first),
                    second_path: path(second),
                    first_ranges: set.to_string(),
                    second_ranges: other.to_string(),
                });
            }
        }
    }
    Ok(())
}

fn range(set: usize, Written { path, range }: &Written) -> Result<Range> {
    let wrong = |key: &str, value: &str, problem| Error::InvalidRange {
        set,
        problem,
        path: format!("{path}.{key}"),
        value: Value::from(value).to_string(),
    };
    if range.subnet.is_empty() {
        return Err(wrong("subnet", "", RangeProblem::NoSubnet));
    }
    let subnet: Cidr = range
        .subnet
        .parse()
        .map_err(|problem| wrong("subnet", &range.subnet, RangeProblem::Text(problem)))?;
    let ip = |key: &str, text: &str| {
        let parsed = (!text.is_empty()).then(|| cni::address::parse_ip(text)).transpose();
        parsed.map_err(|problem| wrong(key, text, RangeProblem::Text(problem)))
    };
    let start = ip("rangeStart", &range.range_start)?;
    let end = ip("rangeEnd", &range.range_end)?;
    let gateway = ip("gateway", &range.gateway)?;
    let exclude = exclusions(&range.exclude, &format!("{path}.exclude"))?;
    let made = Range::new(subnet, start, end, gateway).map_err(|(key, problem)| {
        let value = match key {
            "rangeStart" => &range.range_start,
            "rangeEnd" => &range.range_end,
            "gateway" => &range.gateway,
            _ => &range.subnet,
        };
        wrong(key, value, problem)
    })?;
    Ok(Range { exclude, ..made })
}

/// Addresses and CIDRs that are never handed out.
fn exclusions(texts: &[String], path: &str) -> Result<Vec<Span>> {
    let parse = |text: &str| -> std::result::Result<Span, AddressError> {
        let (address, prefix) = parse_ip_maybe_prefix(text)?;
        Ok(prefix.and_then(|prefix| Cidr::new(address, prefix)).map_or(Span::single(address), Span::of))
    };
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            parse(text).map_err(|problem| Error::Address { path: format!("{path}[{index}]"), problem })
        })
        .collect()
}

/// Routes go into the result as they came, so they are read as a result's.
fn routes(request: &Request) -> Result<Vec<Route>> {
    let ipam = json::get(request.config().object(), "ipam").and_then(Value::as_object);
    let routes = ipam.map(|ipam| Route::read_list(ipam, "routes")).transpose();
    let routes = routes.map_err(|problem| Error::Undecodable { problem: problem.under("ipam") })?;
    Ok(routes.unwrap_or_default())
}

fn one_per_family(sets: &[RangeSet], version: SpecVersion) -> Result<()> {
    let ipv4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if version < SpecVersion::V0_3_0 && (ipv4 > 1 || sets.len() - ipv4 > 1) {
        return Err(Error::TooManySets { version: version.as_str() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
