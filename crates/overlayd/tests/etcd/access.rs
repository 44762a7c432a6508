//! etcd as it is run where it matters: certificates on both sides, and a user with a password.

use std::fs;
use std::process::{Child, Command, Stdio};

use testkit::{Fabric, FabricHost, eventually};

use crate::lab::{Agent, sh};
use crate::server::need_etcd;

const FILES: &str = "/run/etcd-tls";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority, a server's certificate for this host, and a client's, in [`FILES`].
fn certificates(host: &FabricHost) {
    fs::create_dir_all(FILES).unwrap();
    let address = host.ipv4();
    sh(
        host,
        &format!(
            "cd {FILES} && exec 2>log && \
             openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem \
               -addext basicConstraints=critical,CA:TRUE && \
             for name in server node; do \
               openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr && \
               printf 'subjectAltName=IP:{address}\\nextendedKeyUsage=serverAuth,clientAuth\\n' >$name.ext && \
               openssl x509 -req -days 2 -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile $name.ext -out $name.pem; \
             done"
        ),
    );
}

fn start(host: &FabricHost) -> Server {
    let url = format!("https://{}:2379", host.ipv4());
    let words = format!(
        "--name one --data-dir {FILES}/data --listen-client-urls {url} --advertise-client-urls {url} \
         --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
         --initial-cluster one=http://127.0.0.1:2380 --cert-file {FILES}/server.pem --key-file {FILES}/server.key \
         --client-cert-auth --trusted-ca-file {FILES}/ca.pem --log-level error"
    );
    let child = host.enter(|| {
        Command::new("etcd")
            .args(words.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
    let server = Server(child);
    eventually("etcd to answer with certificates", || ctl(host, "", "get x").then_some(()));
    server
}

fn ctl(host: &FabricHost, user: &str, words: &str) -> bool {
    let line = format!(
        "ETCDCTL_API=3 etcdctl --endpoints https://{}:2379 --cacert {FILES}/ca.pem --cert {FILES}/node.pem --key {FILES}/node.key \
         --command-timeout=2s {user} {words}",
        host.ipv4()
    );
    host.run("sh", &["-c", &line]).code == 0
}

#[test]
fn certificates_and_a_password_open_the_door() {
    need_etcd!();
    if testkit::have("openssl").is_none() {
        testkit::skip!("openssl is not installed, which makes the certificates");
    }
    let fabric = Fabric::switched(2);
    let hosts: Vec<&FabricHost> = fabric.hosts().iter().collect();
    certificates(hosts[1]);
    let _server = start(hosts[1]);
    let url = format!("https://{}:2379", hosts[1].ipv4());
    let usual = format!("--etcd {url} --node h1 --cluster-cidr 10.40.0.0/16 --underlay-interface eth0");
    let tls = format!("--etcd-ca {FILES}/ca.pem --etcd-cert {FILES}/node.pem --etcd-key {FILES}/node.key");

    let reason = |agent: &Agent<'_>| {
        eventually("the agent to say why not", || {
            agent.status()["source"]["reason"].as_str().map(str::to_owned)
        })
    };
    let stranger = Agent::start(hosts[0], &format!("{usual} --etcd-ca {FILES}/ca.pem"));
    println!("without a certificate: {}", reason(&stranger));
    assert!(stranger.status()["own"].is_null());
    drop(stranger);
    let agent = Agent::start(hosts[0], &format!("{usual} {tls}"));
    agent.settled(0);
    drop(agent);

    // An operator's account, and one that may do what an agent does.
    for words in [
        "user add root:secret",
        "user grant-role root root",
        "user add overlay:hidden",
        "role add overlay",
        "role grant-permission overlay --prefix=true readwrite /ferrule/blue/",
        "user grant-role overlay overlay",
        "auth enable",
    ] {
        assert!(ctl(hosts[1], "", words), "etcdctl {words}");
    }
    fs::write(format!("{FILES}/password"), "hidden\n").unwrap();
    fs::write(format!("{FILES}/wrong"), "guess\n").unwrap();
    let wrong = Agent::start(
        hosts[0],
        &format!("{usual} {tls} --etcd-user overlay --etcd-password-file {FILES}/wrong"),
    );
    let said = reason(&wrong);
    assert!(said.contains("authentication failed"), "{said}");
    drop(wrong);
    let agent = Agent::start(
        hosts[0],
        &format!("{usual} {tls} --etcd-user overlay --etcd-password-file {FILES}/password"),
    );
    eventually("the source to be current", || (agent.status()["source"]["current"] == true).then_some(()));
    agent.settled(0);
}
