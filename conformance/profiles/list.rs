// The profiles that come with the harness, compiled into it.
[
    ("bridge", include_str!("../profiles/bridge.toml")),
    ("firewall", include_str!("../profiles/firewall.toml")),
    ("host-local", include_str!("../profiles/host-local.toml")),
    ("loopback", include_str!("../profiles/loopback.toml")),
    ("portmap", include_str!("../profiles/portmap.toml")),
    ("tuning", include_str!("../profiles/tuning.toml")),
]
