//! What the kernel itself lists about a namespace, for machines without `ip` and `nft`.

use std::collections::BTreeMap;
use std::fs;

use crate::netlink::nftables_objects;

/// `NFT_MSG_GET…` numbers of `linux/netfilter/nf_tables.h`, and the attributes that name such an object.
const KINDS: [(&str, u16, &[u16]); 4] =
    [("table", 1, &[1]), ("chain", 4, &[1, 3]), ("rule", 7, &[1, 2]), ("set", 10, &[1, 2])];

fn lines(path: &str) -> Vec<String> {
    // The kernel lists the main thread's namespace here, which is the host's.
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Names of links.
pub(crate) fn links() -> Vec<String> {
    let all = lines("/proc/net/dev").into_iter().skip(2);
    all.filter_map(|line| Some(line.split(':').next()?.trim().to_owned())).collect()
}

/// Addresses: of IPv4 only those not seen as routes, of IPv6 all.
pub(crate) fn addresses() -> Vec<String> {
    lines("/proc/net/if_inet6")
        .iter()
        .filter(|line| !line.starts_with("fe80"))
        .map(|line| without(line, &[1]))
        .collect()
}

/// Routes: of IPv4 with the local ones, which carry the addresses.
pub(crate) fn routes() -> Vec<String> {
    let v4 = lines("/proc/net/fib_trie").into_iter().map(|line| line.trim().to_owned());
    let v4 = v4.filter(|line| line.starts_with("|--") || line.contains("host LOCAL"));
    // The last five columns but the name count and time things.
    let v6 = lines("/proc/net/ipv6_route");
    let v6 = v6.iter().filter(|line| !line.starts_with("fe80") && !line.starts_with("ff00"));
    let main = lines("/proc/net/route");
    v4.chain(v6.map(|line| without(line, &[6, 7, 8]))).chain(main).collect()
}

fn without(line: &str, columns: &[usize]) -> String {
    let words = line.split_whitespace().enumerate();
    let kept: Vec<&str> =
        words.filter(|(column, _)| !columns.contains(column)).map(|(_, word)| word).collect();
    kept.join(" ")
}

/// Tables, chains, rules and sets by name. The elements of sets are not told apart.
pub(crate) fn nftables() -> Vec<String> {
    let text = |object: &BTreeMap<u16, Vec<u8>>, attribute: u16| {
        let bytes = object.get(&attribute).map(Vec::as_slice).unwrap_or_default();
        String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
    };
    let mut all = Vec::new();
    for (kind, request, names) in KINDS {
        for object in nftables_objects(request).unwrap_or_default() {
            let names: Vec<String> = names.iter().map(|attribute| text(&object, *attribute)).collect();
            all.push(format!("{kind} {}", names.join(" ")));
        }
    }
    all.sort();
    all
}
