//! The filter tables of `iptables-legacy`, read from the kernel as iptables itself reads them: one block of bytes with all entries.
//!
//! See `include/uapi/linux/netfilter_ipv4/ip_tables.h` and its IPv6 twin. The two differ in the size of an entry's first part only.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;

use nix::errno::Errno;

use super::{Evidence, Sign, Variant, is_of_an_owner};
use crate::firewall::FirewallError;
use crate::sys::xtables;

const FORWARD: usize = 2; // NF_INET_FORWARD
/// `NF_DROP` as the verdict of a standard target, where numbers from 0 up are jumps.
const DROP: i32 = -1;

/// A family's table in the kernel.
#[derive(Debug, Clone, Copy)]
struct Kind {
    ipv6: bool,
    /// Where the kernel lists the tables that are there.
    names: &'static str,
    /// Offset in an entry of the offset of its target; that of the next entry comes behind it.
    offsets: usize,
}

const KINDS: [Kind; 2] = [
    Kind { ipv6: false, names: "/proc/thread-self/net/ip_tables_names", offsets: 88 },
    Kind { ipv6: true, names: "/proc/thread-self/net/ip6_tables_names", offsets: 140 },
];

/// What decides about forwarded packets.
pub(super) fn look() -> Result<Vec<Evidence>, FirewallError> {
    let mut evidence = Vec::new();
    for kind in KINDS {
        // Asking for a table would make it: only those that are there are asked for.
        let names = match fs::read_to_string(kind.names) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(unreadable(kind, source)),
        };
        if !names.lines().any(|name| name == "filter") {
            continue;
        }
        let table = xtables::read("filter", kind.ipv6).map_err(|errno| unreadable(kind, errno.into()))?;
        let entries = Entries { bytes: &table.entries, kind, info: table.info };
        let sign = entries.sign().map_err(|errno| unreadable(kind, errno.into()))?;
        evidence.extend(sign.map(|sign| Evidence::Iptables {
            variant: Variant::Legacy,
            ipv6: kind.ipv6,
            sign,
        }));
    }
    Ok(evidence)
}

fn unreadable(kind: Kind, source: io::Error) -> FirewallError {
    let program = if kind.ipv6 { "ip6tables" } else { "iptables" };
    FirewallError::Inspect { what: format!("the filter table of {program} (legacy)"), source }
}

/// The entries of a table.
struct Entries<'a> {
    bytes: &'a [u8],
    kind: Kind,
    info: xtables::Info,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// The head of a chain, or the end of the table.
    Head(String),
    Verdict(i32),
    Extension(String),
}

/// Reading them fails with `EBADMSG` where the bytes make no sense.
impl Entries<'_> {
    /// What shows that the table filters.
    fn sign(&self) -> Result<Option<Sign>, Errno> {
        let policy = self.entry(self.info.underflow[FORWARD])?;
        if policy.1 == Target::Verdict(DROP) {
            return Ok(Some(Sign::Policy));
        }
        let chains = self.chains()?;
        if let Some(name) = chains.values().find(|name| is_of_an_owner(name)) {
            return Ok(Some(Sign::Chain(name.clone())));
        }
        Ok(self.dropping(&chains)?.map(Sign::Drop))
    }

    /// The next entry's offset, and what this one does.
    fn entry(&self, offset: usize) -> Result<(usize, Target), Errno> {
        let read = || {
            let entry = self.bytes.get(offset..)?;
            let number = |at: usize| Some(usize::from(u16::from_ne_bytes(*entry.get(at..)?.first_chunk()?)));
            let length = number(self.kind.offsets + 2).filter(|length| *length > 0)?;
            let target = entry.get(number(self.kind.offsets)?..length)?;
            let name = text(target.get(2..31)?);
            let target = match name.as_str() {
                "" => Target::Verdict(i32::from_ne_bytes(*target.get(32..)?.first_chunk()?)),
                "ERROR" => Target::Head(text(target.get(32..62)?)),
                _ => Target::Extension(name),
            };
            Some((offset + length, target))
        };
        read().ok_or(Errno::EBADMSG)
    }

    /// The chains that are not built in, by the offset of their first rule.
    fn chains(&self) -> Result<BTreeMap<usize, String>, Errno> {
        let mut chains = BTreeMap::new();
        let mut offset = 0;
        while offset < self.bytes.len() {
            let (next, target) = self.entry(offset)?;
            if let Target::Head(name) = target {
                chains.insert(next, name);
            }
            offset = next;
        }
        Ok(chains)
    }

    /// The first chain that can be reached from `FORWARD` and has a rule that drops or rejects.
    fn dropping(&self, chains: &BTreeMap<usize, String>) -> Result<Option<String>, Errno> {
        let mut ahead = vec![self.info.hook_entry[FORWARD]];
        let mut seen = HashSet::new();
        while let Some(start) = ahead.pop() {
            if !seen.insert(start) {
                continue;
            }
            let mut offset = start;
            // A built-in chain ends with its policy, any other before the head of the next one.
            while offset != self.info.underflow[FORWARD] {
                let (next, target) = self.entry(offset)?;
                match target {
                    Target::Head(_) => break,
                    Target::Verdict(DROP) => return Ok(Some(name(chains, start))),
                    Target::Extension(target) if target == "REJECT" => {
                        return Ok(Some(name(chains, start)));
                    }
                    // A rule without a target jumps to the next one.
                    Target::Verdict(jump) => {
                        ahead.extend(usize::try_from(jump).ok().filter(|jump| *jump != next));
                    }
                    Target::Extension(_) => {}
                }
                offset = next;
            }
        }
        Ok(None)
    }
}

fn name(chains: &BTreeMap<usize, String>, start: usize) -> String {
    chains.get(&start).map_or("FORWARD", String::as_str).to_owned()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of IPv4 with nothing in it but a target.
    fn entry(target: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 112];
        let length = u16::try_from(112 + target.len()).unwrap();
        bytes[88..90].copy_from_slice(&112_u16.to_ne_bytes());
        bytes[90..92].copy_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(target);
        bytes
    }

    fn target(name: &str, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        bytes[2..2 + name.len()].copy_from_slice(name.as_bytes());
        bytes.extend_from_slice(payload);
        entry(&bytes)
    }

    fn sign(entries: &[Vec<u8>], policy: usize) -> Result<Option<Sign>, Errno> {
        let underflow = entries[..policy].iter().map(Vec::len).sum();
        let mut info = xtables::Info::default();
        info.underflow[FORWARD] = underflow;
        Entries { bytes: &entries.concat(), kind: KINDS[0], info }.sign()
    }

    fn accept() -> Vec<u8> {
        target("", &(-2_i32).to_ne_bytes())
    }

    #[test]
    fn a_policy_is_the_last_entry_of_its_chain() {
        assert_eq!(sign(&[accept()], 0), Ok(None));
        assert_eq!(sign(&[accept(), target("", &DROP.to_ne_bytes())], 1), Ok(Some(Sign::Policy)));
        assert_eq!(
            sign(&[target("REJECT", &[0; 8]), accept()], 1),
            Ok(Some(Sign::Drop("FORWARD".to_owned())))
        );
    }

    #[test]
    fn bytes_that_make_no_sense_are_refused() {
        assert_eq!(sign(&[vec![0; 200]], 0), Err(Errno::EBADMSG));
        assert_eq!(sign(&[accept(), vec![1; 7]], 0), Err(Errno::EBADMSG));
        let mut short = accept();
        short[90..92].copy_from_slice(&u16::MAX.to_ne_bytes());
        assert_eq!(sign(&[short], 0), Err(Errno::EBADMSG));
    }
}
