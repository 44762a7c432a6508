//! Many published ports against few: portmap itself, and connections through what it made.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::error::{Doing as _, Result};
use crate::exec::Cost;
use crate::host::Host;
use crate::job::{AFTER_CROWD, Job, V4, container};
use crate::report::Attempt;
use crate::scenario::{Bench, lifecycle};
use crate::site::{Site, Verb};

const FEW: &str = "ours, few ports";
const MANY: &str = "ours, many ports";
/// The bridge's address, which is one of the host's.
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 1);
/// The server, and the client: on both sites they are after the crowd, and publish two ports each.
const SERVER: u16 = AFTER_CROWD;
const CLIENT: u16 = AFTER_CROWD + 1;
/// With the server's and the client's, ten ports are published where there is no crowd.
const OTHERS: u16 = 3;
/// Connections before it is the other's turn: what else the machine does comes and goes.
const TURN: u16 = 20;
/// Connections of each turn that are not counted.
const WARM_UP: u16 = 3;

pub(super) fn run(scenario: &'static str, bench: &mut Bench) -> Result<()> {
    let (rounds, crowd) = (bench.scale.rounds, bench.scale.crowd.min(AFTER_CROWD));
    let ours = bench.ours();
    let site = |_| Site::new(&bench.base, &ours[0], &Job::crowd(V4));
    let sites: Vec<Site> = [FEW, MANY].iter().map(site).collect::<Result<_>>()?;
    let first = CLIENT + 1 + OTHERS;
    for site in &sites {
        site.create_containers((0..crowd).chain(SERVER..first + rounds))?;
        for number in SERVER..first {
            site.run(Verb::Add, number)?;
        }
    }
    for number in 0..crowd {
        sites[1].run(Verb::Add, number)?;
    }
    for verb in [Verb::Add, Verb::Del] {
        let attempts = lifecycle::in_turns(&sites, verb, first..first + rounds)?;
        for (who, attempts) in [FEW, MANY].iter().zip(&attempts) {
            bench.report.add_series(scenario, who, verb.name(), &of_portmap(attempts));
        }
    }
    let job = Job::crowd(V4);
    let port = job.ports(SERVER)[0].host;
    let servers: Vec<Server> = sites.iter().map(|site| Server::start(site.host())).collect::<Result<_>>()?;
    let mut attempts = [Vec::new(), Vec::new()];
    for turn in 0..bench.scale.connections.div_ceil(TURN) {
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            attempts[index].extend(connections(sites[index].host(), port, TURN)?);
        }
    }
    drop(servers);
    for (who, attempts) in [FEW, MANY].iter().zip(&attempts) {
        bench.report.add_series(scenario, who, "connect", attempts);
    }
    Ok(())
}

fn of_portmap(attempts: &[Attempt]) -> Vec<Attempt> {
    let portmap = |attempt: &Attempt| {
        attempt.iter().filter(|(plugin, _)| plugin == "portmap").cloned().collect::<Attempt>()
    };
    attempts.iter().map(portmap).collect()
}

/// Times connections from one container to another by a published port of the host.
fn connections(host: &Host, port: u16, count: u16) -> Result<Vec<Attempt>> {
    let target = SocketAddr::from((HOST_ADDRESS, port));
    host.enter_container(&container(CLIENT), || {
        let mut attempts = Vec::new();
        for number in 0..count + WARM_UP {
            let start = Instant::now();
            let stream = TcpStream::connect(target).doing("connect to", target.to_string())?;
            let wall = start.elapsed();
            // A reset: thousands of connections in TIME_WAIT would be an obstacle of their own.
            let reset = linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &reset).doing("set an option of", "a connection")?;
            if number >= WARM_UP {
                attempts.push(vec![("connect".to_owned(), Cost { wall, ..Cost::default() })]);
            }
        }
        Ok(attempts)
    })
}

/// Accepts connections in the server's container until dropped.
#[derive(Debug)]
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// How often it looks whether it is to stop while nobody connects.
    const TICK: TimeVal = TimeVal::new(0, 20_000);

    fn start(host: &Host) -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
        let listener = host.enter_container(&container(SERVER), || {
            TcpListener::bind(any).doing("listen on", any.to_string())
        })?;
        setsockopt(&listener, sockopt::ReceiveTimeout, &Self::TICK)
            .doing("set an option of", "a listener")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                drop(listener.accept());
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
