//! The documentation's example does what the page says.

use std::fs;

use serde_json::json;
use testkit::{Attachment, Host, Runtime, documented_example, ip_json, sysctl, workspace_dir};

#[test]
fn the_example_tunes_a_container() {
    let host = Host::new();
    let container = host.container("c1");
    let chain = Runtime::new().chain(&documented_example("tuning"));
    chain.status().unwrap();
    let attachment = Attachment::new("c1", &container, "eth0").capability("mac", json!("02:42:0a:5f:00:99"));
    let result = chain.add(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(result["interfaces"][2]["mac"], "02:42:0a:5f:00:99");
    assert_eq!(result["interfaces"][2]["mtu"], 1400);
    chain.check(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
    container.enter(|| {
        let link = &ip_json("link show eth0")[0];
        assert_eq!(link["address"], "02:42:0a:5f:00:99");
        assert_eq!((link["mtu"].as_u64(), link["txqlen"].as_u64()), (Some(1400), Some(2000)));
        assert_eq!(sysctl("net/core/somaxconn"), "500");
        assert_eq!(sysctl("net/ipv4/conf/eth0/arp_notify"), "1");
        assert_eq!(sysctl("net/ipv4/ip_local_port_range"), "20000\t30000");
    });
    chain.del(&attachment).unwrap_or_else(|failure| panic!("{failure}"));
}

/// The page's allowlist allows what the example sets, but for the one that it leaves out.
#[test]
fn the_allowlist_of_the_page_is_one() {
    let host = Host::new();
    let container = host.container("c1");
    let page = fs::read_to_string(workspace_dir().join("docs/plugins/tuning.md")).unwrap();
    let lines: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("    ^")).collect();
    assert_eq!(lines.len(), 2);
    fs::create_dir_all("/etc/cni/tuning").unwrap();
    fs::write("/etc/cni/tuning/allowlist.conf", format!("^{}\n", lines.join("\n^"))).unwrap();
    let chain = Runtime::new().chain(&documented_example("tuning"));
    let failure = chain.add(&Attachment::new("c1", &container, "eth0")).unwrap_err();
    assert!(failure.text().contains("Sysctl net.ipv4.ip_local_port_range is not allowed"), "{failure}");
}
